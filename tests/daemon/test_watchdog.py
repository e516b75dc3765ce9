"""Bounds in time that hold on time: an engine that stands still, and a deadline that comes while every slot is busy."""

import os
import signal
import time

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.pools import a_fake_pool
from tests.support.waiting import wait_until

IDLE_MS = 1_500
SLACK_S = 1.0


@pytest.mark.orch("ORCH-3016")
def test_a_stopped_engine_is_noticed_at_the_idle_bound_and_replaced(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(timeouts={"wall_ms": 60_000, "idle_ms": IDLE_MS})).start_ready()
    pid = daemon.pool("tiny")["pid"]
    task_id = daemon.accept(prompt="x [[slow_ms@50]]", max_tokens=400)
    with daemon.open_stream(task_id) as events:
        [next(events) for _ in range(5)]
        os.kill(pid, signal.SIGSTOP)
        last_s = time.monotonic()
        for event in events:
            last_s = time.monotonic() if event.name == "token" else last_s
        took_s = time.monotonic() - last_s

    assert (event.data["code"], event.data["reason"]) == ("DECODE_TIMEOUT", "stalled")
    assert IDLE_MS / 1_000 - SLACK_S < took_s < IDLE_MS / 1_000 + SLACK_S
    wait_until(lambda: daemon.pool("tiny")["pid"] not in (pid, None), within_s=30, what="a new worker")
    daemon.wait_ready()
    assert daemon.read_stream(daemon.accept(prompt="fine")).end.name == "end"


@pytest.mark.orch("ORCH-3016")
def test_a_deadline_ends_a_waiting_task_on_time_while_every_slot_is_busy_for_much_longer(
    make_daemon: MakeDaemon,
) -> None:
    pool = a_fake_pool(slots=2, determinism="best_effort")
    daemon = make_daemon(pool).start_ready()
    busy = [
        daemon.accept(prompt="x [[slow_ms@20]]", max_tokens=400, determinism="best_effort")
        for _ in range(pool["slots"])
    ]
    began_s = time.monotonic()
    stream = daemon.read_stream(daemon.accept(prompt="fine", deadline_ms=700))
    took_s = time.monotonic() - began_s

    assert stream.names == ["error"]
    assert (stream.end.data["code"], stream.end.data["reason"]) == ("DECODE_TIMEOUT", "deadline")
    assert 0.6 < took_s < 0.7 + SLACK_S
    assert {daemon.ask("GET", f"/v1/tasks/{task_id}").json["state"] for task_id in busy} == {"running"}
