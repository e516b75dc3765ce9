"""A policy plugin in a whole daemon: its choices count, and a bad one costs nobody a task."""

from pathlib import Path
from typing import Any

import pytest
import wasmtime

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon
from tests.support.pools import ROOT, a_fake_pool
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orch("ORCH-3048")
SAMPLE = ROOT / "examples" / "policy" / "pack.wasm"
LOOP = """(module (memory (export "memory") 2)
  (func (export "alloc") (param i32) (result i32) (i32.const 1024))
  (func (export "decide") (param i32 i32) (result i64) (loop (br 0)) (i64.const 0)))"""


def two_pools() -> list[dict[str, Any]]:
    return [a_fake_pool(pool_id, slots=2, determinism="best_effort") for pool_id in ("one", "two")]


def run_two_long_tasks(daemon: Daemon) -> set[str]:
    """The pools that two tasks run on at the same time."""
    ids = [daemon.accept(prompt="[[slow_ms@50]] x", max_tokens=400, determinism="best_effort") for _ in range(2)]
    return {pool_of(daemon, task_id) for task_id in ids}


def pool_of(daemon: Daemon, task_id: str) -> str:
    """Where the task runs, once it does."""
    return str(wait_until(lambda: daemon.ask("GET", f"/v1/tasks/{task_id}").json.get("pool_id")))


def test_it_packs_where_the_built_in_policy_spreads(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(*two_pools(), settings={"policy": {"module": str(SAMPLE)}}).start_ready()

    pools = run_two_long_tasks(daemon)

    assert len(pools) == 1
    assert daemon.status()["policy"]["state"] == "active"
    calls = daemon.series("policy_calls_total")
    assert {labels: value for labels, value in calls.items() if "place" in labels and "decided" in labels}
    assert sum(value for labels, value in calls.items() if "decided" not in labels) == 0


def test_a_policy_without_end_is_set_aside_and_the_built_in_one_decides(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    module = tmp_path / "loop.wasm"
    module.write_bytes(bytes(wasmtime.wat2wasm(LOOP)))
    daemon = make_daemon(*two_pools(), settings={"policy": {"module": str(module)}}).start_ready()

    ends = [daemon.read_stream(daemon.accept(max_tokens=2)).end.name for _ in range(4)]

    assert ends == ["end"] * 4
    status = daemon.status()["policy"]
    assert status["state"] == "set_aside"
    assert "fuel" in status["cause"]


def test_a_module_that_cannot_be_used_is_named_and_nobody_waits_for_it(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    module = tmp_path / "text.wasm"
    module.write_text("(module)")
    daemon = make_daemon(*two_pools(), settings={"policy": {"module": str(module)}}).start_ready()

    pools = run_two_long_tasks(daemon)

    assert pools == {"one", "two"}
    assert daemon.status()["policy"]["state"] == "refused"
    wait_until(lambda: "the policy is not used" in daemon.log_text(), what="its line")
