"""An engine that is up and fails every run: ejected in the sight of clients and operators, and tried again."""

from typing import Any

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon
from tests.support.fake_engine_script import Script
from tests.support.pools import a_fake_pool
from tests.support.waiting import wait_until


def breaker(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.pool("tiny")["breaker"]
    return found


def fail_five(daemon: Daemon) -> None:
    for _ in range(5):
        stream = daemon.read_stream(daemon.accept(prompt="x [[error@0]]", determinism="best_effort"))
        assert stream.end.data["code"] == "WORKER_RESET"


@pytest.mark.orch("ORCH-3025", "ORCH-3028")
def test_an_engine_that_fails_every_run_is_ejected_and_says_so_everywhere(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(determinism="best_effort")).start_ready()
    fail_five(daemon)
    refused = daemon.submit()

    assert (refused.status, refused.json["code"], refused.json["reason"]) == (503, "REPLICA_EXHAUSTED", "ejected")
    assert 25_000 < refused.json["retry_after_ms"] <= 30_000
    assert int(refused.headers["Retry-After"]) * 1_000 >= refused.json["retry_after_ms"]
    seen = breaker(daemon)
    assert (seen["state"], daemon.pool("tiny")["ready"]) == ("open", True)
    assert daemon.ask("GET", "/readyz").status == 503
    assert 0 < seen["retry_in_ms"] <= 30_000
    assert seen["cause"]
    series = daemon.series("breaker_state")
    assert {labels: value for labels, value in series.items() if 'kind="replica"' in labels and value == 1.0}
    assert {labels: value for labels, value in series.items() if 'kind="restart"' in labels and value == 0.0}
    (line,) = daemon.wait_lines("breaker open")
    assert (line["pool_id"], line["cause"]) == ("tiny", seen["cause"])


def test_an_operator_brings_an_ejected_pool_back_with_one_probe(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(determinism="best_effort")).start_ready()
    fail_five(daemon)
    assert daemon.ask_control("POST", "/v1/pools/tiny/resume").status == 202
    wait_until(lambda: breaker(daemon)["state"] == "half-open", what="the probe's turn")
    stream = daemon.read_stream(daemon.accept(prompt="fine"))

    assert stream.end.name == "end"
    assert breaker(daemon)["state"] == "closed"


def test_a_busy_engine_is_no_fault_and_its_task_runs_when_there_is_room(make_daemon: MakeDaemon, tmp_path: Any) -> None:
    script_path = tmp_path / "script.json"
    script_path.write_text(Script().to_json())
    pool = a_fake_pool(determinism="best_effort")
    pool["launch"]["env"]["FAKE_ENGINE"] = str(script_path)
    daemon = make_daemon(pool).start_ready()
    busy = {"status": 503, "body": '{"error":{"code":503,"message":"busy","type":"unavailable_error"}}'}
    script_path.write_text(Script(answers={"/completion": busy}).to_json())
    task_id = daemon.accept(prompt="patient")
    wait_until(lambda: daemon.ask("GET", f"/v1/tasks/{task_id}").json["attempt"] >= 4 or None, what="four tries")
    assert breaker(daemon)["state"] == "closed"
    script_path.write_text(Script().to_json())

    assert daemon.read_stream(task_id).end.name == "end"
