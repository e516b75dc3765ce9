"""Cancels that meet the end of their task: no late token, and one terminal frame, whoever comes first."""

import asyncio

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.cancel_races import run_races
from tests.support.fast_pool import a_fast_pool

RACES = 300


@pytest.mark.fault("F49")
@pytest.mark.orch("ORCH-3017", "ORCH-3026")
def test_a_cancel_and_a_finish_make_one_end_and_no_late_token(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fast_pool(slots=64, queue={"capacity": 1_000})).start_ready()
    ends = asyncio.run(run_races(daemon.port, RACES, at_once=50, seed=1, first_ms=30))

    assert sum(ends.values()) == RACES
    assert set(ends) == {"canceled", "length"}, ends
    assert "Traceback" not in daemon.log_text()
