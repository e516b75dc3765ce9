"""Waits until something is as it should be, or time is up. Decides nothing about what that is: the verb says."""

import time
from collections.abc import Callable
from typing import TypeVar

from orchctl.client import Client
from orchctl.exits import ExitCode, VerbError
from orchctl.pool_words import standing
from orchctl.progress import WaitingLine
from orchctl.spans import spoken
from orchctl.terminal import err_screen
from supervisor.wire.pools import PoolHealth

LOOK_S = 0.2
"""Between two looks."""

T = TypeVar("T")


def wait_until_done(
    look: Callable[[], T],
    is_done: Callable[[T], bool],
    words_of: Callable[[T], str],
    *,
    awaited: str,
    late: Callable[[str], str],
    again: str,
    timeout_ms: int,
) -> T:
    """The last look, once it is done. Raises VerbError when `timeout_ms` have passed.

    `awaited` and the words of a look stand in the line that waits; `late` makes the cause out of the time that was
    given, `again` is the next step.
    """
    until_s = time.monotonic() + timeout_ms / 1_000
    seen = look()
    words = [words_of(seen)]
    with WaitingLine(err_screen(), lambda: f"waiting for {awaited}: {words[0]}"):
        while not is_done(seen):
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                raise VerbError(ExitCode.FAILED, f"{late(spoken(timeout_ms))} ({words[0]})", again)
            time.sleep(min(LOOK_S, left_s))
            seen = look()
            words[0] = words_of(seen)
    return seen


def wait_for_pool(
    client: Client, pool: str, is_done: Callable[[PoolHealth], bool], wish: str, timeout_ms: int
) -> PoolHealth:
    """The health of the pool once it is done. Raises VerbError when `timeout_ms` have passed, with the state then."""
    return wait_until_done(
        lambda: client.pool(pool),
        is_done,
        standing,
        awaited=f"{pool} {wish}",
        late=lambda span: f"pool {pool} took longer than {span} {wish}",
        again=f"look again with `orchctl status {pool}`",
        timeout_ms=timeout_ms,
    )
