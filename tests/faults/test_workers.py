"""Engines that lie, hang, crash and leave: the whole daemon against the scripted fake engine."""

import signal
from typing import Any

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon
from tests.support.fake_engine_script import Script
from tests.support.fault_watch import Measure
from tests.support.pools import a_fake_pool
from tests.support.waiting import wait_until


def wait_state(daemon: Daemon, state: str, within_s: float = 60.0) -> dict[str, Any]:
    """The pool once it is in this state."""

    def look() -> dict[str, Any] | None:
        pool = daemon.pool("tiny")
        return pool if pool["state"] == state else None

    return wait_until(look, within_s=within_s, what=f"state {state}")


@pytest.mark.fault("F03")
@pytest.mark.orch("ORCH-3053")
def test_a_crash_loop_opens_the_breaker_and_says_why(make_daemon: MakeDaemon, measured: Measure) -> None:
    daemon = make_daemon(a_fake_pool(script=Script(exit_rc=1, exit_text="error: invalid argument: --no-such"))).start()
    pool = wait_state(daemon, "broken")
    refused = daemon.submit()

    spawned = daemon.wait_lines("worker spawning", count=5)
    measured("starts until the breaker", len(spawned), "")
    assert len(spawned) == 5
    assert pool["cause"].endswith("(breaker open)")
    assert pool["retry_in_ms"] > 500_000
    assert (refused.status, refused.json["code"]) == (503, "POOL_UNAVAILABLE")
    assert daemon.engine_pids() == []


@pytest.mark.fault("F48")
@pytest.mark.parametrize(
    ("script", "cause"),
    [
        (Script(ctx_per_slot=256), "256 tokens of context per slot, 512 are configured"),
        (Script(ignore_key=True), "a foreign process answers"),
        (Script(slot_sticks=True, token_s=0.02), "self-test cancel"),
        (Script(fault="hang", fault_at=0), "self-test minimal_decode"),
    ],
    ids=["shrunken context", "takes any key", "does not cancel", "generates nothing"],
)
@pytest.mark.orch("ORCH-3049", "ORCH-3010")
def test_an_engine_that_answers_health_and_does_not_serve_is_not_ready(
    make_daemon: MakeDaemon, script: Script, cause: str
) -> None:
    daemon = make_daemon(a_fake_pool(script=script, timeouts={"wall_ms": 2_000, "idle_ms": 2_000})).start()
    pool = wait_state(daemon, "backoff")

    assert cause in pool["cause"]
    assert pool["steps"][-1]["state"] == "failed" or pool["steps"][-1]["name"] != "telemetry"
    assert daemon.submit().status == 503


@pytest.mark.fault("F04")
@pytest.mark.orch("ORCH-3016")
def test_an_engine_that_stops_in_mid_stream_is_noticed_and_replaced(make_daemon: MakeDaemon) -> None:
    pool = a_fake_pool(timeouts={"wall_ms": 60_000, "idle_ms": 500})
    daemon = make_daemon(pool).start_ready()
    old = daemon.pool("tiny")["pid"]
    stream = daemon.read_stream(daemon.accept(prompt="x [[freeze@5]]", max_tokens=50))

    assert stream.end.name == "error"
    assert stream.end.data["code"] == "DECODE_TIMEOUT"
    assert stream.end.data["reason"] == "stalled"
    assert stream.end.data["retriable"] is True
    wait_until(lambda: daemon.pool("tiny")["pid"] not in (old, None), within_s=30, what="a new worker")
    daemon.wait_ready()
    assert daemon.read_stream(daemon.accept(prompt="fine")).end.name == "end"


@pytest.mark.orch("ORCH-3016")
def test_the_wall_ends_a_task_that_runs_too_long(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(timeouts={"wall_ms": 700, "idle_ms": 500})).start_ready()
    stream = daemon.read_stream(daemon.accept(prompt="x [[slow_ms@20]]", max_tokens=400))

    assert (stream.end.data["code"], stream.end.data["reason"]) == ("DECODE_TIMEOUT", "wall")


@pytest.mark.fault("F06")
@pytest.mark.parametrize("fault", ["garbage", "half_json", "bad_utf8", "long_line", "bad_chunk", "early", "error"])
def test_garbage_ends_the_stream_with_a_typed_error_and_no_other(make_daemon: MakeDaemon, fault: str) -> None:
    daemon = make_daemon(a_fake_pool(determinism="best_effort")).start_ready()
    stream = daemon.read_stream(daemon.accept(prompt=f"x [[{fault}@3]]", determinism="best_effort"))

    assert stream.end.name == "error"
    assert stream.end.data["code"] == "WORKER_RESET"
    assert "Traceback" not in daemon.log_text()
    daemon.wait_ready()
    assert daemon.read_stream(daemon.accept(prompt="fine")).end.name == "end"


@pytest.mark.fault("F06")
def test_a_second_end_changes_nothing(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()

    assert daemon.read_stream(daemon.accept(prompt="x [[double_end@4]]", max_tokens=4)).end.name == "end"


@pytest.mark.fault("F52")
def test_a_poison_task_ends_after_two_workers_and_takes_nobody_with_it(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    poison = daemon.accept(prompt="x [[die@3]]")
    behind = daemon.accept(prompt="fine")
    stream = daemon.read_stream(poison)

    assert stream.end.name == "error"
    assert stream.end.data["code"] == "WORKER_RESET"
    assert stream.end.data["reason"] == "poison"
    assert stream.end.data["retriable"] is False
    assert daemon.read_stream(behind).end.name == "end"
    assert daemon.pool("tiny")["metrics"]["restarts_total"] == 2


@pytest.mark.fault("F02")
def test_a_best_effort_task_that_delivered_tokens_is_told_to_retry(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(determinism="best_effort")).start_ready()
    stream = daemon.read_stream(daemon.accept(prompt="x [[die@3]]"))

    assert stream.end.data["code"] == "WORKER_RESET"
    assert stream.end.data["retriable"] is True


@pytest.mark.orch("ORCH-3017")
def test_a_slot_that_is_not_freed_costs_the_worker_its_life(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    old = daemon.pool("tiny")["pid"]
    task_id = daemon.accept(prompt="x [[freeze@2]]", max_tokens=50)
    with daemon.open_stream(task_id) as events:
        [next(events) for _ in range(3)]
        assert daemon.ask("POST", f"/v1/tasks/{task_id}/cancel").status == 204

    wait_until(lambda: daemon.pool("tiny")["pid"] not in (old, None), within_s=30, what="a new worker")
    wait_until(lambda: '"cause":"a slot was not freed after a cancel"' in daemon.log_text(), what="the line of its end")


def test_a_deadline_fires_on_time_while_every_slot_is_busy(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    busy = daemon.accept(prompt="x [[slow_ms@20]]", max_tokens=400)
    waiting = daemon.accept(prompt="fine", deadline_ms=300)
    stream = daemon.read_stream(waiting)

    assert stream.names == ["error"]
    assert (stream.end.data["code"], stream.end.data["reason"]) == ("DECODE_TIMEOUT", "deadline")
    assert daemon.ask("GET", f"/v1/tasks/{busy}").json["state"] == "running"


def test_a_running_task_whose_last_reader_left_is_cancelled_after_the_grace(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(disconnect_grace_ms=100)).start_ready()
    task_id = daemon.accept(prompt="x [[slow_ms@20]]", max_tokens=400)
    with daemon.open_stream(task_id) as events:
        next(events)

    assert daemon.wait_terminal(task_id)["result"]["finish_reason"] == "canceled"


@pytest.mark.fault("F43")
def test_a_second_sigterm_stops_at_once(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(script=Script(ignore_sigterm=True))).start_ready()
    task_id = daemon.accept(prompt="x [[slow_ms@20]]", max_tokens=500)
    with daemon.open_stream(task_id) as events:
        next(events)
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        wait_until(lambda: daemon.status()["state"] == "stopping", what="the halt")
        daemon.process.send_signal(signal.SIGTERM)
        seen = list(events)

    assert (seen[-1].data["code"], seen[-1].data["reason"]) == ("WORKER_RESET", "shutdown")
    assert daemon.process.wait(20) == 0
    assert daemon.engine_pids() == []


@pytest.mark.fault("F47")
def test_what_an_engine_leaves_behind_is_swept(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(script=Script(strays=("same_group", "own_session")))).start_ready()
    before = daemon.engine_pids()
    assert daemon.stop() == 0

    assert len(before) == 3
    assert daemon.engine_pids() == []
