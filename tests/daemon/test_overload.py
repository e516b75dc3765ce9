"""More callers than a pool can serve, against a real daemon: hints that hold, and predictions that are about right."""

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon
from tests.support.fast_pool import a_fast_pool
from tests.support.open_loop import open_loop

SLOTS = 4
TOKENS = 10
TICK_MS = 10.0
CAPACITY_PER_S = SLOTS * 1_000 / (TOKENS * TICK_MS)


def overloaded(make_daemon: MakeDaemon) -> Daemon:
    """A daemon whose pool serves 40 tasks a second, and has seen some."""
    pool = a_fast_pool(slots=SLOTS, tick_ms=TICK_MS, queue={"capacity": 16}, disconnect_grace_ms=-1)
    daemon = make_daemon(pool).start_ready()
    for _ in range(4):
        daemon.read_stream(daemon.accept(max_tokens=TOKENS, prompt="#9999 warm", determinism="best_effort"))
    return daemon


@pytest.mark.fault("F40")
@pytest.mark.orch("ORCH-3005", "ORCH-3025", "ORCH-3029")
def test_who_comes_back_at_the_hint_is_let_in_and_starts_about_when_it_was_told(make_daemon: MakeDaemon) -> None:
    daemon = overloaded(make_daemon)
    seen = open_loop(daemon.port, 5 * CAPACITY_PER_S, 3.0, max_tokens=TOKENS)
    metrics = daemon.pool("tiny")["metrics"]

    assert seen.strange == []
    assert seen.retries > 20
    assert seen.honesty >= 0.8, (seen.honesty, seen.retries)  # the full law is measured in the acceptance run
    assert metrics["predicted_start_error_p50_percent"] < 50
    assert metrics["predicted_start_error_p90_ms"] is not None
