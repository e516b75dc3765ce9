"""Waits until a pool is as it should be, or time is up. Decides nothing about what that is: the verb says."""

import time
from collections.abc import Callable

from orchctl.client import Client
from orchctl.durations import spoken
from orchctl.exits import ExitCode, VerbError
from orchctl.pool_words import standing
from orchctl.progress import WaitingLine
from orchctl.terminal import err_screen
from supervisor.wire.pools import PoolHealth

LOOK_S = 0.2
"""Between two looks at the pool."""


def wait_for_pool(
    client: Client, pool: str, is_done: Callable[[PoolHealth], bool], wish: str, timeout_ms: int
) -> PoolHealth:
    """The health of the pool once it is done. Raises VerbError when `timeout_ms` have passed, with the state then."""
    until_s = time.monotonic() + timeout_ms / 1_000
    health = client.pool(pool)
    words = [standing(health)]
    with WaitingLine(err_screen(), lambda: f"waiting for {pool} {wish}: {words[0]}"):
        while not is_done(health):
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                cause = f"pool {pool} took longer than {spoken(timeout_ms)} {wish} ({words[0]})"
                raise VerbError(ExitCode.FAILED, cause, f"look again with `orchctl status {pool}`")
            time.sleep(min(LOOK_S, left_s))
            health = client.pool(pool)
            words[0] = standing(health)
    return health
