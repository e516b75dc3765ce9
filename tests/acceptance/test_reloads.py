"""A hundred reloads of models and configurations under load: nobody who asks the pool ever notices one (ORCH-3031)."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.client import NEVER
from tests.support.callers import Seen, keep_calling
from tests.support.changes import a_fake_config, change, pool_in_file, rewrite, settle
from tests.support.daemon import Daemon
from tests.support.fast_pool import a_fast_pool

pytestmark = [pytest.mark.accept, pytest.mark.timeout(1_200)]

RELOADS = int(os.environ.get("ACCEPT_RELOADS", "100"))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A Ready pool with four slots; the revision before is kept for a moment only."""
    pool = a_fast_pool(slots=4, tick_ms=5.0, disconnect_grace_ms=-1)
    config = a_fake_config(tmp_path, {**pool, "id": "tiny"}, rollout={"keep_previous_ms": 0})
    daemon = Daemon(tmp_path, config)
    yield daemon.start_ready()
    daemon.close()


def reload_once(daemon: Daemon, number: int) -> str:
    """One change, to its end: another model, another bound, another worker, in turn."""
    if number % 4 < 2:
        change(daemon, "reload", {"new_model_ref": ("other", "tiny")[number % 2]})
        kind = "model"
    else:
        pool = pool_in_file(daemon, "tiny")
        launch = {**pool["launch"], "env": {**pool["launch"].get("env", {}), "TURN": str(number)}}
        other = {**pool, "queue": {"capacity": 200 + number}} if number % 4 == 2 else {**pool, "launch": launch}
        rewrite(daemon, pools=[other])
        reply = daemon.ask_control("POST", "/v1/config/reload", {})
        assert reply.status == 200, reply.body
        kind = reply.json["changes"][0]["effect"]
    assert settle(daemon)["rollout"] is None
    return kind


@pytest.mark.orch("ORCH-3031")
async def test_a_hundred_reloads_under_load_fail_no_request(daemon: Daemon) -> None:
    over, kinds, took_s = asyncio.Event(), list[str](), list[float]()
    seen = Seen()
    calling = asyncio.create_task(keep_calling(daemon, over, NEVER, seen))

    for number in range(RELOADS):
        began_s = time.monotonic()
        kinds.append(await asyncio.to_thread(reload_once, daemon, number))
        took_s.append(time.monotonic() - began_s)
    over.set()
    await calling

    took_s.sort()
    seen.took_s.sort()
    counts = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    print(
        f"\n{RELOADS} reloads {counts}, "
        f"median {took_s[len(took_s) // 2] * 1e3:.0f} ms, slowest {took_s[-1] * 1e3:.0f} ms; "
        f"{seen.ended} tasks ended, {len(seen.failed)} failed, "
        f"p50 {seen.took_s[len(seen.took_s) // 2] * 1e3:.0f} ms, "
        f"p99 {seen.took_s[int(len(seen.took_s) * 0.99)] * 1e3:.0f} ms"
    )
    assert seen.failed == []
    assert seen.ended > RELOADS
    assert [line for line in daemon.log_lines() if line["event"] in {"task failed", "task refused"}] == []
