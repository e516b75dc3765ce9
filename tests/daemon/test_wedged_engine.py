"""Health is green and generation is dead: the daemon notices, also while nobody asks for anything."""

from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon
from tests.support.fake_engine_script import GOOD, Script
from tests.support.pools import a_scripted_pool
from tests.support.waiting import wait_until

QUICK = {"idle_every_ms": 200, "within_ms": 500}


def a_quick_pool(path: Path, **fields: Any) -> dict[str, Any]:
    return a_scripted_pool(path, GOOD, probe=QUICK, **fields)


def wait_replaced(daemon: Daemon, old: int) -> None:
    wait_until(lambda: daemon.pool("tiny")["pid"] not in (old, None), within_s=30, what="a new worker")


def causes(daemon: Daemon) -> list[str]:
    return [line["cause"] for line in daemon.log_lines() if line["event"] == "worker stopping"]


@pytest.mark.orch("ORCH-3038")
def test_an_idle_engine_that_answers_health_and_generates_nothing_is_replaced(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    script = tmp_path / "engine.json"
    daemon = make_daemon(a_quick_pool(script)).start_ready()
    old = daemon.pool("tiny")["pid"]
    script.write_text(Script(fault="hang").to_json())
    wait_until(lambda: causes(daemon), within_s=20, what="its replacement")
    script.write_text(GOOD.to_json())
    wait_replaced(daemon, old)
    daemon.wait_ready()

    assert causes(daemon)[0].startswith("it answers and does not generate: minimal_decode")
    assert daemon.read_stream(daemon.accept(prompt="fine")).end.name == "end"


@pytest.mark.orch("ORCH-3038")
def test_an_engine_whose_completions_all_fail_is_replaced(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    script = tmp_path / "engine.json"
    daemon = make_daemon(a_quick_pool(script)).start_ready()
    old = daemon.pool("tiny")["pid"]
    script.write_text(Script(answers={"/completion": {"status": 500, "body": "{}"}}).to_json())
    wait_until(lambda: causes(daemon), within_s=20, what="its replacement")
    script.write_text(GOOD.to_json())

    wait_replaced(daemon, old)
    daemon.wait_ready()


@pytest.mark.orch("ORCH-3038")
def test_probes_of_a_good_engine_disturb_nobody_and_count_as_no_task(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    daemon = make_daemon(a_quick_pool(tmp_path / "engine.json")).start_ready()
    pid, log = daemon.pool("tiny")["pid"], tmp_path / "state" / "logs" / "tiny.log"
    streams = [daemon.read_stream(daemon.accept(prompt=f"fine {number} [[slow_ms@20]]")) for number in range(10)]

    assert {stream.end.name for stream in streams} == {"end"}
    assert (daemon.pool("tiny")["pid"], log.exists()) == (pid, True)
    assert sum(daemon.series("tasks_started_total").values()) == 10
    assert causes(daemon) == []


@pytest.mark.orch("ORCH-3016", "ORCH-3038")
def test_three_tasks_that_stall_without_a_token_replace_the_worker(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    script = tmp_path / "engine.json"
    pool = a_scripted_pool(script, GOOD, timeouts={"wall_ms": 60_000, "idle_ms": 300, "first_token_ms": 300})
    daemon = make_daemon(pool).start_ready()
    old = daemon.pool("tiny")["pid"]
    ends = [daemon.read_stream(daemon.accept(prompt="x [[hang@0]]")).end for _ in range(3)]

    assert {(end.data["code"], end.data["reason"]) for end in ends} == {("DECODE_TIMEOUT", "stalled")}
    wait_replaced(daemon, old)
    assert causes(daemon)[0] == "3 tasks in a row stalled and it gave no token in between"
    daemon.wait_ready()
    assert daemon.read_stream(daemon.accept(prompt="fine")).end.name == "end"
