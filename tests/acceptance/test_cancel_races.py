"""`ACCEPT_RACES=10000`: cancels at random moments around the end of their task, hundreds at once, on one daemon."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cancel_races import run_races
from tests.support.daemon import Daemon
from tests.support.fast_pool import a_fast_pool
from tests.support.pools import a_model
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.accept]

RACES = int(os.environ.get("ACCEPT_RACES", "10000"))
SEED = int(os.environ.get("ACCEPT_SEED", "1"))
AT_ONCE = 300


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    pool = a_fast_pool(slots=256, tick_ms=2, queue={"capacity": 4_096})
    made = Daemon(tmp_path, {"pools": [pool], "models": a_model(tmp_path)})
    yield made
    made.close()


@pytest.mark.orch("ORCH-3017", "ORCH-3026")
def test_no_token_comes_after_a_cancel_and_every_stream_has_one_end(daemon: Daemon) -> None:
    daemon.start_ready()
    began = time.monotonic()
    ends = asyncio.run(run_races(daemon.port, RACES, AT_ONCE, SEED, first_ms=300))
    took_s = time.monotonic() - began

    print(f"\n{RACES} races, {AT_ONCE} at once, {took_s:.0f} s: {dict(ends)}")
    assert sum(ends.values()) == RACES
    assert min(ends["canceled"], ends["length"]) > RACES / 20, "both sides must win often, or it is no race"
    wait_until(lambda: daemon.pool("tiny")["metrics"]["slots_busy"] == 0, within_s=30, what="every slot free")
    assert daemon.pool("tiny")["metrics"]["restarts_total"] == 0
    assert "Traceback" not in daemon.log_text()
