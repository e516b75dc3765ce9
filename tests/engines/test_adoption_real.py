"""The real llama.cpp server outlives its daemon: the same process serves on, and streams have no seam."""

import time
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.pools import a_model, a_pool

pytestmark = pytest.mark.engines


@pytest.mark.orch("ORCH-3053")
def test_a_real_engine_is_adopted_and_the_stream_goes_on(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, {"pools": [a_pool()], "models": a_model(tmp_path)})
    try:
        daemon.start_ready()
        whole = daemon.read_stream(daemon.accept(prompt="go on", max_tokens=450, seed=5))
        task_id = daemon.accept(prompt="go on", max_tokens=450, seed=5)
        with daemon.open_stream(task_id) as events:
            seen = [next(events) for _ in range(30)]
            pids = daemon.engine_pids()
            daemon.kill()
        began_s = time.monotonic()
        daemon.start_ready()
        took_s = time.monotonic() - began_s
        rest = daemon.read_stream(task_id, after=seen[-1].seq)

        tokens = [event for event in [*seen, *rest.events] if event.name == "token"]
        print(f"\nfrom the start of the daemon to Ready with an adopted engine: {took_s:.2f} s")
        assert daemon.engine_pids() == pids
        assert "".join(event.data["t"] for event in tokens) == whole.text
        assert [event.data["i"] for event in tokens] == list(range(len(tokens)))
        assert rest.end.data["tokens_out"] == 450
    finally:
        daemon.close()
