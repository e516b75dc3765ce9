"""`orchctl upgrade`: the daemon replaces itself in place, and nobody outside can tell but by the life in its status."""

import contextlib
import http.client
import os
import signal
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from supervisor.daemon import READY_AFTER_HANDOVER_S
from supervisor.runtime import worker_records
from supervisor.runtime.signals import HELD_SIGNALS
from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon
from tests.support.fake_engine_script import GOOD, Script
from tests.support.pools import a_fake_pool, a_scripted_pool
from tests.support.waiting import wait_until

STANDS_STILL = Script(fault="hang", fault_at=20)
"""A task that does not end, however long the new program is tried."""
PATIENT = {"wall_ms": 100_000, "idle_ms": 90_000}


def life_of(daemon: Daemon) -> str:
    life: str = daemon.ask_control("GET", "/v1/upgrade").json["life"]
    return life


def upgrade(daemon: Daemon, deadline_ms: int = 5_000) -> str:
    """Upgrade and wait for the next life; gives it."""
    before = life_of(daemon)
    with daemon.silence():
        reply = daemon.ask_control("POST", "/v1/upgrade", {"deadline_ms": deadline_ms})
        assert reply.status == 202, reply.body
        return wait_until(lambda: after if (after := life_of(daemon)) != before else None, what="the next life")


def wait_refused(daemon: Daemon) -> str:
    def look() -> str | None:
        status: dict[str, Any] = daemon.ask_control("GET", "/v1/upgrade").json
        return status["cause"] if status["state"] == "refused" else None

    return wait_until(look, what="the refusal")


@pytest.mark.fault("F42")
def test_three_upgrades_keep_pid_engine_port_and_queue(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    assert daemon.process is not None
    engines, port = daemon.engine_pids(), daemon.port
    tasks, lives = [], {life_of(daemon)}
    for number in range(3):
        tasks += [daemon.accept(prompt=f"task {number}", max_tokens=5) for _ in range(3)]
        lives.add(upgrade(daemon))
    daemon.wait_ready()

    ends = [daemon.read_stream(task_id).end for task_id in tasks]
    assert len(lives) == 4
    assert daemon.process.poll() is None
    assert daemon.pool("tiny")["pid"] == engines[0]
    assert daemon.engine_pids() == engines
    assert daemon.port == port
    assert [end.name for end in ends] == ["end"] * 9
    assert daemon.stop() == 0
    assert daemon.engine_pids() == []


@pytest.mark.fault("F42")
def test_a_strict_task_is_cut_and_its_stream_goes_on_without_a_gap(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    script = tmp_path / "script"
    daemon = make_daemon(a_scripted_pool(script, GOOD, timeouts=PATIENT)).start_ready()
    task = {"prompt": "seam", "max_tokens": 100, "seed": 3}
    whole = daemon.read_stream(daemon.accept(**task))
    script.write_text(STANDS_STILL.to_json())
    task_id = daemon.accept(**task)
    with daemon.open_stream(task_id) as events:
        seen = [next(events) for _ in range(10)]
        script.write_text(GOOD.to_json())
        upgrade(daemon, deadline_ms=0)
        seen += list(events)
    rest = daemon.read_stream(task_id, after=seen[-1].seq)

    tokens = [event for event in [*seen, *rest.events] if event.name == "token"]
    assert {event.name for event in seen} <= {"started", "token", "metrics"}
    assert "".join(event.data["t"] for event in tokens) == whole.text
    assert [event.data["i"] for event in tokens] == list(range(len(tokens)))
    assert rest.end.name == "end"


def test_a_task_that_is_cut_by_many_upgrades_is_not_taken_for_poison(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    script = tmp_path / "script"
    daemon = make_daemon(a_scripted_pool(script, STANDS_STILL, timeouts=PATIENT)).start_ready()
    task_id = daemon.accept(max_tokens=60, seed=3)
    for left in reversed(range(6)):
        daemon.wait_ready()
        wait_until(lambda: daemon.ask("GET", f"/v1/tasks/{task_id}").json["state"] == "running", what="the run")
        if left == 0:
            script.write_text(GOOD.to_json())
        upgrade(daemon, deadline_ms=0)

    assert daemon.read_stream(task_id).end.name == "end"


def test_what_cannot_be_run_again_is_waited_for(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    task_id = daemon.accept(prompt="x [[slow_ms@10]]", max_tokens=100, determinism="best_effort")
    with daemon.open_stream(task_id) as events:
        seen = [next(events) for _ in range(3)]
        upgrade(daemon, deadline_ms=30_000)
        seen += list(events)

    assert seen[-1].name == "end"
    assert seen[-1].data["tokens_out"] == 100


def test_an_upgrade_that_would_cut_what_cannot_be_run_again_is_refused_and_all_goes_on(
    make_daemon: MakeDaemon,
) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    life = life_of(daemon)
    task_id = daemon.accept(prompt="x [[slow_ms@20]]", max_tokens=450, determinism="best_effort")
    with daemon.open_stream(task_id) as events:
        seen = [next(events) for _ in range(3)]
        waiting = daemon.accept()
        daemon.ask_control("POST", "/v1/upgrade", {"deadline_ms": 100})
        cause = wait_refused(daemon)
        daemon.ask("POST", f"/v1/tasks/{task_id}/cancel")
        seen += list(events)

    assert cause == "1 task that cannot be run again did not end in time"
    assert seen[-1].name == "end"
    assert daemon.read_stream(waiting).end.name == "end"
    assert life_of(daemon) == life


def test_tasks_are_accepted_while_the_daemon_comes_to_rest(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    life = life_of(daemon)
    running = daemon.accept(prompt="x [[slow_ms@10]]", max_tokens=450, determinism="best_effort")
    with daemon.open_stream(running) as events:
        next(events)
        daemon.ask_control("POST", "/v1/upgrade", {"deadline_ms": 30_000})
        second = daemon.ask_control("POST", "/v1/upgrade", {"deadline_ms": 30_000})
        accepted = daemon.submit()
        list(events)
    wait_until(lambda: life_of(daemon) != life, what="the next life")

    assert (second.status, second.json["reason"]) == (409, "busy")
    assert accepted.status == 202
    assert accepted.headers["Connection"] == "close"
    assert daemon.read_stream(accepted.json["task_id"]).end.name == "end"


@pytest.mark.fault("F41")
def test_a_program_that_would_not_load_the_config_is_refused(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    life = life_of(daemon)
    config = yaml.safe_load(daemon.config_path.read_text())
    daemon.config_path.write_text(yaml.safe_dump({**config, "no_such_field": 1}))
    refused = daemon.ask_control("POST", "/v1/upgrade", {"deadline_ms": 1_000})

    assert refused.status == 400
    assert refused.json["message"].startswith("The new program would not start: ")
    assert "no_such_field" in refused.json["message"]
    assert life_of(daemon) == life
    assert daemon.read_stream(daemon.accept()).end.name == "end"


def test_a_drain_survives_an_upgrade_a_crash_and_a_stop(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    daemon.ask_control("POST", "/v1/pools/tiny/drain", {"deadline_ms": 0})
    found = []
    upgrade(daemon)
    found.append(daemon.pool("tiny")["draining"])
    daemon.kill()
    daemon.start()
    found.append(daemon.pool("tiny")["draining"])
    assert daemon.stop() == 0
    daemon.start()
    found.append(daemon.pool("tiny")["draining"])

    assert found == [True, True, True]


def test_signals_of_the_moment_in_between_are_not_lost(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    assert daemon.process is not None
    daemon.ask_control("POST", "/v1/upgrade", {"deadline_ms": 0})
    wait_until(lambda: "daemon stopped" in daemon.log_text(), what="the end of the first image")
    daemon.process.send_signal(signal.SIGTERM)

    assert daemon.process.wait(30) == 0
    assert "daemon stops" in daemon.log_text()
    assert daemon.engine_pids() == []
    assert list((daemon.folder / "state").glob("worker-*")) == []


@pytest.mark.fault("F07")
def test_a_daemon_that_is_killed_right_after_the_exec_loses_nothing(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    (pid,) = daemon.engine_pids()
    tasks = [daemon.accept(prompt=f"{number} [[slow_ms@10]]", max_tokens=20, seed=number) for number in range(4)]
    daemon.ask_control("POST", "/v1/upgrade", {"deadline_ms": 0})
    wait_until(lambda: "daemon stopped" in daemon.log_text(), what="the end of the first image")
    daemon.kill()
    daemon.start_ready()

    assert [daemon.read_stream(task_id).end.name for task_id in tasks] == ["end"] * 4
    assert daemon.engine_pids() == [pid]


@pytest.mark.fault("F07")
def test_a_daemon_that_is_killed_while_it_comes_to_rest_loses_nothing(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    (pid,) = daemon.engine_pids()
    tasks = [daemon.accept(prompt=f"{number} [[slow_ms@10]]", max_tokens=40, seed=number) for number in range(3)]
    daemon.ask_control("POST", "/v1/upgrade", {"deadline_ms": 60_000})
    daemon.kill()
    daemon.start_ready()

    assert [daemon.read_stream(task_id).end.name for task_id in tasks] == ["end"] * 3
    assert daemon.engine_pids() == [pid]


def test_an_engine_holds_back_none_of_the_signals_that_its_daemon_does(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    assert daemon.process is not None
    held = [held_by(pid) for pid in (daemon.process.pid, *daemon.engine_pids())]

    assert held == [HELD_SIGNALS, set()]


def held_by(pid: int) -> set[int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = int(next(line for line in lines if line.startswith("SigBlk:")).split()[1], 16)
    return {number + 1 for number in range(64) if mask >> number & 1}


def test_an_adopted_child_is_waited_for_when_it_ends(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    (pid,) = daemon.engine_pids()
    upgrade(daemon)
    daemon.wait_ready()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: daemon.pool("tiny")["pid"] not in (pid, None), what="a new worker")
    daemon.wait_ready()

    assert not Path(f"/proc/{pid}").exists()
    assert [record.pid for record in worker_records.read_all(daemon.folder / "state").records] == daemon.engine_pids()


def test_health_is_answered_before_the_workers_are_ready_and_the_rest_waits_for_them(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    script = tmp_path / "script"
    daemon = make_daemon(a_scripted_pool(script, GOOD)).start_ready()
    script.write_text(Script(health_hangs=True).to_json())
    daemon.ask_control("POST", "/v1/upgrade", {"deadline_ms": 0})
    wait_until(lambda: "daemon stopped" in daemon.log_text(), what="the end of the first image")
    alive = daemon.ask("GET", "/healthz").status
    waited_s = time.time() - began_at_s(daemon)
    served = len(daemon.wait_lines("daemon serves"))
    script.write_text(GOOD.to_json())
    accepted = daemon.submit()

    assert alive == 200
    assert waited_s < READY_AFTER_HANDOVER_S, "health waited for the workers"
    assert served == 1
    assert accepted.status == 202
    assert len(daemon.wait_lines("daemon serves", count=2)) == 2


def began_at_s(daemon: Daemon) -> float:
    """When the last image began its work, after its program was loaded: in seconds of the wall clock."""
    lines = daemon.wait_lines("workers are confined", count=2)
    return datetime.fromisoformat(lines[-1]["time"]).timestamp()


def test_a_stop_while_requests_wait_for_the_workers_answers_them(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    script = tmp_path / "script"
    daemon = make_daemon(a_scripted_pool(script, GOOD)).start_ready()
    script.write_text(Script(health_hangs=True).to_json())
    daemon.ask_control("POST", "/v1/upgrade", {"deadline_ms": 0})
    wait_until(lambda: "daemon stopped" in daemon.log_text(), what="the end of the first image")
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)) as waiting:
        waiting.request("GET", "/v1/replicasets")
        daemon.ask("GET", "/healthz")  # answered after the other was taken up
        code = daemon.stop()
        status = waiting.getresponse().status

    assert status == 200
    assert code == 0
    assert daemon.engine_pids() == []
