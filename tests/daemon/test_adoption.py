"""An engine outlives the crash of its daemon: adopted by proof, or ended with the reason in the log."""

import http.server
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from supervisor.runtime import worker_records
from supervisor.runtime.worker_records import WorkerRecord
from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon
from tests.support.pools import a_fake_pool
from tests.support.waiting import wait_until

NOT_ADOPTED = "an engine of an earlier daemon is not adopted"
ADOPTED = "an engine of an earlier daemon is adopted"


def record_of(daemon: Daemon) -> WorkerRecord:
    (record,) = worker_records.read_all(daemon.folder / "state").records
    return record


def rewrite_record(daemon: Daemon, **changes: object) -> WorkerRecord:
    """What the dead daemon left on disk, otherwise."""
    record: WorkerRecord = msgspec.structs.replace(record_of(daemon), **changes)
    worker_records.write(daemon.folder / "state", record)
    return record


def reconfigure(daemon: Daemon, change: Callable[[dict[str, Any]], object]) -> None:
    config = yaml.safe_load(daemon.config_path.read_text())
    change(config)
    daemon.config_path.write_text(yaml.safe_dump(config))


def why_not_adopted(daemon: Daemon) -> str:
    cause: str = daemon.wait_lines(NOT_ADOPTED)[0]["cause"]
    return cause


@contextmanager
def a_squatter() -> Iterator[int]:
    """A foreign HTTP server that knows a key of its own."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_known = self.headers.get("Authorization") == "Bearer another-key"
            self.send_response(200 if is_known else 401)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.fault("F07")
@pytest.mark.orch("ORCH-3053", "ORCH-3024")
def test_an_engine_outlives_its_daemon_and_the_stream_has_no_seam(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    slow = {"prompt": "seam [[slow_ms@10]]", "max_tokens": 100, "seed": 3}
    whole = daemon.read_stream(daemon.accept(**slow))
    task_id = daemon.accept(**slow)
    with daemon.open_stream(task_id) as events:
        seen = [next(events) for _ in range(20)]
        (pid,) = daemon.engine_pids()
        daemon.kill()
    daemon.start_ready()
    rest = daemon.read_stream(task_id, after=seen[-1].seq)

    tokens = [event for event in [*seen, *rest.events] if event.name == "token"]
    assert daemon.engine_pids() == [pid]
    assert daemon.pool("tiny")["pid"] == pid
    assert "".join(event.data["t"] for event in tokens) == whole.text
    assert [event.data["i"] for event in tokens] == list(range(len(tokens)))
    assert rest.end.data["tokens_out"] == whole.end.data["tokens_out"]
    assert len(daemon.wait_lines(ADOPTED)) == 1


def test_an_adopted_worker_goes_every_step_but_the_start(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    daemon.kill()
    daemon.start_ready()

    names = [step["name"] for step in daemon.pool("tiny")["steps"]]
    assert names[:4] == ["model digest", "process up", "engine health", "engine properties"]
    assert names[-1] == "telemetry"
    assert daemon.pool("tiny")["metrics"]["restarts_total"] == 0


def test_an_adopted_worker_that_dies_is_replaced(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    (pid,) = daemon.engine_pids()
    daemon.kill()
    daemon.start_ready()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: daemon.pool("tiny")["pid"] not in (pid, None), what="a new worker")
    daemon.wait_ready()

    assert pid not in daemon.engine_pids()
    assert daemon.read_stream(daemon.accept()).end.name == "end"
    assert len(list((daemon.folder / "state").glob("worker-*"))) == 1


def test_sigterm_stops_an_adopted_worker(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    daemon.kill()
    daemon.start_ready()
    (pid,) = daemon.engine_pids()

    assert daemon.stop() == 0
    assert worker_records.process_facts(pid) is None
    assert list((daemon.folder / "state").glob("worker-*")) == []


def test_a_pool_that_is_configured_otherwise_gets_a_new_engine(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    (pid,) = daemon.engine_pids()
    daemon.kill()
    reconfigure(daemon, lambda config: config["pools"][0].update(ctx=256))
    daemon.start_ready()

    assert why_not_adopted(daemon) == "the configuration would launch it otherwise"
    assert len(daemon.engine_pids()) == 1
    assert pid not in daemon.engine_pids()
    assert daemon.pool("tiny")["ctx_per_slot"] == 256


def test_a_pool_that_is_gone_from_the_config_loses_its_engine(make_daemon: MakeDaemon) -> None:
    pools = [a_fake_pool(name, devices=[gpu]) for gpu, name in enumerate(("kept", "gone"))]
    daemon = make_daemon(*pools, simulate="2x8GiB").start_ready()
    kept = daemon.pool("kept")["pid"]
    daemon.kill()
    reconfigure(daemon, lambda config: config["pools"].pop())
    daemon.start_ready()

    assert why_not_adopted(daemon) == "its pool is not configured any more"
    assert daemon.engine_pids() == [kept]


def test_devices_that_are_others_now_get_a_new_engine(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(), simulate="2x8GiB").start_ready()
    (pid,) = daemon.engine_pids()
    daemon.kill()
    reconfigure(daemon, lambda config: config["pools"][0].update(devices=[1]))
    daemon.start_ready()

    assert why_not_adopted(daemon) == "its pool cannot take it"
    assert pid not in daemon.engine_pids()


@pytest.mark.fault("F48")
def test_a_squatter_on_the_port_is_neither_adopted_nor_harmed(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    (pid,) = daemon.engine_pids()
    daemon.kill()
    with a_squatter() as port:
        rewrite_record(daemon, port=port)
        daemon.start_ready()

        assert "it does not know the worker's key" in why_not_adopted(daemon)
        assert pid not in daemon.engine_pids()
        assert record_of(daemon).port != port


def test_an_engine_that_takes_any_key_is_not_adopted(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text("{}")
    pool = a_fake_pool()
    pool["launch"]["env"] = {"FAKE_ENGINE": str(script)}
    daemon = make_daemon(pool).start_ready()
    (pid,) = daemon.engine_pids()
    daemon.kill()
    script.write_text(json.dumps({"ignore_key": True}))
    daemon.start()

    assert "it takes any key" in why_not_adopted(daemon)
    wait_until(lambda: pid not in daemon.engine_pids(), what="the end of the engine")


def test_a_record_of_another_boot_is_discarded_and_nobody_is_signalled(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    daemon.kill()
    (pid,) = daemon.engine_pids()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not daemon.engine_pids(), what="the end of the engine")
    rewrite_record(daemon, boot_id="00000000-0000-0000-0000-000000000000", pid=os.getpid())
    daemon.start_ready()

    assert why_not_adopted(daemon) == "it ran before the host was started again"
    assert record_of(daemon).pid == daemon.pool("tiny")["pid"]


def test_a_pid_that_was_given_to_somebody_else_is_left_alone(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    daemon.kill()
    (pid,) = daemon.engine_pids()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not daemon.engine_pids(), what="the end of the engine")
    rewrite_record(daemon, pid=os.getpid())
    daemon.start_ready()

    assert why_not_adopted(daemon) == "its process has ended"
    assert record_of(daemon).pid == daemon.pool("tiny")["pid"]


def test_a_process_without_the_mark_of_the_worker_is_not_adopted(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    daemon.kill()
    rewrite_record(daemon, mark="another")
    daemon.start_ready()

    assert why_not_adopted(daemon) == "the process does not carry the mark of its worker"
    assert daemon.read_stream(daemon.accept()).end.name == "end"


def test_an_engine_without_a_record_is_ended(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    daemon.kill()
    (pid,) = daemon.engine_pids()
    for path in (daemon.folder / "state").glob("worker-*"):
        path.unlink()
    daemon.start_ready()

    assert pid not in daemon.engine_pids()
    assert len(daemon.engine_pids()) == 1


@pytest.mark.fault("F07")
@pytest.mark.orch("ORCH-3053")
def test_a_daemon_that_is_killed_again_and_again_adopts_each_time(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    pids = daemon.engine_pids()
    for _ in range(3):
        daemon.kill()
        daemon.start()
        daemon.wait_lines(ADOPTED)
    daemon.wait_ready()

    assert daemon.engine_pids() == pids


def test_a_daemon_that_stops_before_it_adopts_leaves_no_engine(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    (pid,) = daemon.engine_pids()
    daemon.kill()
    daemon.start()

    assert daemon.stop() == 0
    assert worker_records.process_facts(pid) is None
    assert list((daemon.folder / "state").glob("worker-*")) == []


@pytest.mark.orch("ORCH-3053", "ORCH-3037")
@pytest.mark.parametrize("is_replaced", [False, True])
def test_an_engine_is_not_adopted_past_a_file_beside_its_model_that_was_replaced(
    make_daemon: MakeDaemon, tmp_path: Path, *, is_replaced: bool
) -> None:
    adapter = tmp_path / "adapter.gguf"
    adapter.write_bytes(b"GGUF, the first")
    pool = a_fake_pool()
    launch = {**pool["launch"], "command": [*pool["launch"]["command"], "--lora", "adapter.gguf"]}
    daemon = make_daemon({**pool, "launch": launch}).start_ready()
    before = daemon.pool("tiny")
    daemon.kill()
    if is_replaced:
        fresh = tmp_path / "fresh"
        fresh.write_bytes(b"GGUF, the second")
        fresh.replace(adapter)

    daemon.start_ready()

    after = daemon.pool("tiny")
    verified = next(step["detail"] for step in after["steps"] if step["name"] == before["steps"][0]["name"])
    assert (before["pid"] == after["pid"]) is not is_replaced
    assert "beside it sha256:" in verified
    if is_replaced:
        assert "a file beside its model was replaced since it was started: adapter.gguf" in why_not_adopted(daemon)
