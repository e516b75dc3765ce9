"""Tens of thousands of short tasks through one daemon: what it takes of the host comes to rest.

A finished task is forgotten but for its id, and of those the last 10,000 are kept at least: after that nothing grows.
"""

import asyncio
import os
from pathlib import Path

import pytest

from supervisor.client import OrchClient, new_completion
from tests.daemon.conftest import MakeDaemon, make_daemon
from tests.support.daemon import Daemon
from tests.support.fast_pool import a_fast_pool
from tests.support.fault_watch import CONNECTIONS_PER_WORKER
from tests.support.footprint import Footprint, footprint, steady
from tests.support.pools import a_model

__all__ = ["make_daemon"]

pytestmark = [pytest.mark.accept, pytest.mark.timeout(1_200)]

IDS_MIN = 10_000
BEYOND = int(os.environ.get("ACCEPT_TASKS", "10000"))
"""Tasks after those whose ids are remembered: the steady state."""
LOOK_AT = (1_000, 5_000, IDS_MIN, IDS_MIN + BEYOND)
CALLERS = 16
TOKENS = 4
RSS_GROWTH_MAX_MIB = 4.0


async def serve(daemon: Daemon, count: int) -> int:
    """So many tasks, `CALLERS` at a time, each to its end; gives the tokens."""
    tokens = 0

    async def one_after_the_other(client: OrchClient, share: int) -> None:
        nonlocal tokens
        for number in range(share):
            task = new_completion(f"steady {number}", model_ref="tiny", ctx=512, max_tokens=TOKENS)
            answer = await client.complete(task)
            tokens += answer.end.tokens_out

    async with OrchClient(f"http://127.0.0.1:{daemon.port}") as client:
        shares = [count // CALLERS + (number < count % CALLERS) for number in range(CALLERS)]
        await asyncio.gather(*(one_after_the_other(client, share) for share in shares))
    return tokens


def look(daemon: Daemon) -> Footprint:
    assert daemon.process is not None
    pid = daemon.process.pid
    return steady([footprint(pid) for _ in range(5)])


@pytest.mark.orch("ORCH-3053")
async def test_memory_and_descriptors_come_to_rest(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    retention = {"finished_ms": 1_000, "finished_bytes_max": 65_536, "ids_min": IDS_MIN}
    pool = a_fast_pool(slots=CALLERS, tick_ms=1.0)
    daemon = make_daemon(pool, settings={"models": a_model(tmp_path), "retention": retention}).start_ready()

    looks, done, tokens = [look(daemon)], 0, 0
    for target in LOOK_AT:
        tokens += await serve(daemon, target - done)
        done = target
        looks.append(look(daemon))

    for count, seen in zip((0, *LOOK_AT), looks, strict=True):
        print(f"\n{count:>6} tasks: {seen.rss_mib:6.1f} MiB, {seen.fds.total()} descriptors", end="")
    full, steady_state = looks[-2:]
    assert tokens == LOOK_AT[-1] * TOKENS
    assert steady_state.grown(full, CALLERS + CONNECTIONS_PER_WORKER).total() == 0
    assert steady_state.rss_mib - full.rss_mib <= RSS_GROWTH_MAX_MIB
