"""Which memory was short: a real kill by the kernel, a real abort, and words that prove nothing."""

from pathlib import Path
from typing import Any

import pytest

from supervisor.runtime.cgroups import CgroupError, GroupWish, open_cgroups
from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon
from tests.support.fake_engine_script import Script
from tests.support.pools import a_fake_pool

LIMIT_BYTES = 160 * 1024 * 1024
WORDS = "CUDA error: out of memory"


def exit_line(daemon: Daemon) -> dict[str, Any]:
    """The first line about an engine that ended."""
    return daemon.wait_lines("engine exited", within_s=30)[0]


def counted(daemon: Daemon) -> dict[str, float]:
    """Ends for want of memory, by kind."""
    series = daemon.series("oom_events_total")
    return {labels.partition('kind="')[2].partition('"')[0]: value for labels, value in series.items()}


def limited(pool: dict[str, Any]) -> dict[str, Any]:
    """The pool with a bound on its host memory; skips where nobody may set one."""
    groups = open_cgroups(f"can-{Path(__file__).stem}")
    try:
        group = groups.make("probe", GroupWish(memory_max=LIMIT_BYTES))
    except CgroupError as error:
        pytest.skip(f"NO REAL OOM KILL IS TESTED HERE: {error}")
    assert group is not None
    group.remove()
    groups.close()
    return {**pool, "launch": {**pool["launch"], "memory_max": LIMIT_BYTES}}


@pytest.mark.fault("F17")
@pytest.mark.orch("ORCH-3039")
def test_a_kill_for_want_of_host_memory_is_told_as_such_and_the_pool_comes_back(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(limited(a_fake_pool(determinism="best_effort"))).start_ready()
    stream = daemon.read_stream(daemon.accept(prompt="x [[eat@3]]", determinism="best_effort"))
    ended = exit_line(daemon)

    assert (stream.end.data["code"], stream.end.data["retriable"]) == ("WORKER_RESET", True)
    assert (ended["kind"], counted(daemon)) == ("oom_host", {"host": 1.0})
    assert "host memory" in ended["cause"]
    daemon.wait_ready()
    assert daemon.read_stream(daemon.accept(prompt="fine")).end.name == "end"
    assert [line["oom_events"] for line in daemon.wait_tasks_logged(2)] == [0, 1]


@pytest.mark.fault("F20")
@pytest.mark.orch("ORCH-3039", "ORCH-3038")
def test_an_abort_for_want_of_gpu_memory_is_told_as_such(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(determinism="best_effort")).start_ready()
    stream = daemon.read_stream(daemon.accept(prompt="x [[abort@3]]", determinism="best_effort"))
    ended = exit_line(daemon)

    assert stream.end.data["code"] == "WORKER_RESET"
    assert (ended["kind"], counted(daemon)) == ("oom_vram", {"vram": 1.0})


@pytest.mark.parametrize("fault", ["die", "exit"])
@pytest.mark.orch("ORCH-3039")
def test_words_of_a_prompt_in_the_engines_log_prove_nothing(make_daemon: MakeDaemon, fault: str) -> None:
    daemon = make_daemon(a_fake_pool(script=Script(logs_prompts=True), determinism="best_effort")).start_ready()
    daemon.read_stream(daemon.accept(prompt=f"x\n{WORDS}\nstd::bad_alloc\n[[{fault}@3]]", determinism="best_effort"))
    ended = exit_line(daemon)

    assert WORDS in daemon.log_path.with_name("state").joinpath("logs", "tiny.log").read_text()
    assert ended["kind"] == {"die": "killed_unknown", "exit": "crashed"}[fault]
    assert counted(daemon) == {}
