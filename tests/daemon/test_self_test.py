"""A self-test on demand: of a real daemon and a real engine, beside its tasks."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon
from tests.support.fake_engine_script import Script
from tests.support.pools import a_fake_pool, a_scripted_pool

SLOW = "x [[slow_ms@50]]"


def cli(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`orchctl`, asking this daemon."""
    command = [sys.executable, "-m", "orchctl", "--socket", str(daemon.socket_path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.engines
@pytest.mark.orch("ORCH-3049")
def test_a_serving_pool_is_tested_step_by_step_and_stays_as_it_is(daemon: Daemon) -> None:
    before = daemon.pool("tiny")

    reply = daemon.ask_control("POST", "/v1/pools/tiny/selftest")

    assert reply.status == 200
    assert reply.json["passed"] is True
    assert [step["name"] for step in reply.json["steps"]] == ["minimal_decode", "cancel", "telemetry"]
    assert all(step["passed"] and step["detail"] for step in reply.json["steps"])
    after = daemon.pool("tiny")
    assert (after["pid"], after["state"], after["since_ms"]) == (before["pid"], "ready", after["since_ms"])
    assert daemon.read_stream(daemon.accept(prompt="fine")).end.name == "end"


def test_it_runs_beside_a_task_in_a_slot_of_its_own(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(slots=2, determinism="best_effort")).start_ready()
    task_id = daemon.accept(prompt=SLOW, max_tokens=60, determinism="best_effort")
    with daemon.open_stream(task_id) as events:
        next(events)

        reply = daemon.ask_control("POST", "/v1/pools/tiny/selftest")

        assert (reply.status, reply.json["passed"]) == (200, True)
        assert [event.name for event in events][-1] == "end"


def test_it_is_refused_while_every_slot_is_taken(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    task_id = daemon.accept(prompt=SLOW, max_tokens=400)
    with daemon.open_stream(task_id) as events:
        next(events)

        reply = daemon.ask_control("POST", "/v1/pools/tiny/selftest")

    assert (reply.status, reply.json["code"], reply.json["reason"]) == (409, "ADMISSION_REJECT", "busy")
    assert cli(daemon, "selftest", "tiny").returncode == 75


def test_a_task_that_comes_meanwhile_waits_for_its_end(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(script=Script(token_s=0.02))).start_ready()

    reply = daemon.ask_control("POST", "/v1/pools/tiny/selftest")
    task = daemon.read_stream(daemon.accept(prompt="fine", max_tokens=4))

    assert reply.json["passed"] is True
    assert task.end.name == "end"


def test_a_step_that_fails_is_named_and_the_worker_is_left_alone(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    daemon = make_daemon(a_scripted_pool(script, Script())).start_ready()
    pid = daemon.pool("tiny")["pid"]
    script.write_text(Script(fault="error").to_json())

    told = cli(daemon, "selftest", "tiny")

    assert told.returncode == 1
    assert "minimal_decode" in told.stderr
    script.write_text(Script().to_json())
    pool = daemon.pool("tiny")
    assert (pool["pid"], pool["ready"], pool["metrics"]["restarts_total"]) == (pid, True, 0)
    assert cli(daemon, "selftest", "tiny").returncode == 0


def test_an_unknown_pool_and_one_that_is_not_ready_have_nothing_to_test(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(script=Script(never_ready=True))).start()

    unknown = daemon.ask_control("POST", "/v1/pools/nobody/selftest")
    unready = daemon.ask_control("POST", "/v1/pools/tiny/selftest")

    assert (unknown.status, unknown.json["reason"]) == (404, "not_found")
    assert (unready.status, unready.json["code"]) == (503, "POOL_UNREADY")
