"""Things that stand where the daemon expects others: it starts, serves and stops all the same."""

import os
import signal
import time
from pathlib import Path

from supervisor.runtime.intent_file import NAME
from tests.daemon.conftest import MakeDaemon
from tests.support.pools import a_fake_pool
from tests.support.waiting import wait_until

HUGE_BYTES = 1 << 40
STOP_S_MAX = 8.0


def test_folders_in_the_place_of_records_and_wishes_stop_no_start(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool())
    state = daemon.folder / "state"
    state.mkdir(mode=0o700)
    for name in ("worker-tiny-1.json", "worker-x-1.json", NAME):
        (state / name).mkdir()
    daemon.start_ready()

    assert daemon.read_stream(daemon.accept()).end.name == "end"
    assert daemon.stop() == 0


def test_a_log_that_became_a_link_hides_no_dead_engine(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    (log,) = (daemon.folder / "state" / "logs").glob("*.log")
    (pid,) = daemon.engine_pids()
    log.rename(log.with_suffix(".old"))
    log.symlink_to(log.with_suffix(".old"))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not daemon.pool("tiny")["ready"], what="the news of the dead engine")
    log.unlink()
    daemon.wait_ready()

    assert daemon.engine_pids() != [pid]


def test_a_stop_does_not_wait_for_a_model_that_is_read(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    daemon = make_daemon(a_fake_pool())
    os.truncate(tmp_path / "tiny.gguf", HUGE_BYTES)
    daemon.start()
    wait_until(lambda: daemon.pool("tiny")["state"] == "verifying", what="the reading of the model")
    began_s = time.monotonic()

    assert daemon.stop() == 0
    assert time.monotonic() - began_s < STOP_S_MAX
