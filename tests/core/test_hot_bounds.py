"""Bounds that change while workers run: they hold from that moment on, for what is there already too."""

from typing import Any

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.invariants import violations
from supervisor.core.plan import HostPlan
from tests.core.builders import Stage, make_plan, make_task, only, ready_stage

HOUR_MS = 3_600_000


def a_stage(every_ms: int | None = None, host: HostPlan | None = None) -> Stage:
    return ready_stage(make_plan(slots=4, is_batch_invariant=True, probe_every_ms=every_ms), host=host)


def tune(stage: Stage, every_ms: int | None = None, **host: Any) -> list[ef.Effect]:
    plan = make_plan(slots=4, is_batch_invariant=True, probe_every_ms=every_ms)
    effects = stage.give(ev.PoolsChanged(ticket="t", generation=2, tuned=(plan,), host=HostPlan(**host)))
    assert violations(stage.core.state, stage.now) == []
    return effects


def ended(stage: Stage, *names: str, **given: Any) -> None:
    """Tasks that ended, with ten bytes of stream each."""
    for name in names:
        stage.submit(make_task(name, **given))
        stage.finish(name)
        stage.settle()


def probes(effects: list[ef.Effect]) -> int:
    return len(only(effects, ef.ProbeIdleEngine))


@pytest.mark.parametrize("before_ms", [None, HOUR_MS])
def test_a_worker_is_probed_by_the_new_time_at_once(before_ms: int | None) -> None:
    stage = a_stage(before_ms)
    tune(stage, 10_000)

    assert probes(stage.pass_ms(10_000)) == 1


@pytest.mark.parametrize("after_ms", [None, HOUR_MS])
def test_a_worker_that_is_to_be_probed_seldom_is_not_probed_by_the_old_time(after_ms: int | None) -> None:
    stage = a_stage(10_000)
    tune(stage, after_ms)

    assert probes(stage.pass_ms(HOUR_MS / 2)) == 0


def test_a_change_of_the_time_and_back_leaves_one_probe_at_a_time() -> None:
    stage = a_stage(10_000)
    for every_ms in (20_000, 10_000, 20_000, 10_000):
        tune(stage, every_ms)
    (probe,) = only(stage.pass_ms(10_000), ef.ProbeIdleEngine)
    stage.give(ev.IdleEngineProbed("p0", probe.incarnation, probe.run_id, None))

    assert probes(stage.pass_ms(9_000)) == 0
    assert probes(stage.pass_ms(1_000)) == 1


def test_streams_that_are_too_old_by_the_new_time_go_at_once_and_the_next_one_by_it() -> None:
    stage = a_stage(host=HostPlan(finished_retention_ms=HOUR_MS))
    ended(stage, "old")
    stage.pass_ms(5_000)
    ended(stage, "young")

    now = only(tune(stage, finished_retention_ms=1_000), ef.DropLogs)
    later = only(stage.pass_ms(1_000), ef.DropLogs)

    assert [effect.job_ids for effect in (*now, *later)] == [("old",), ("young",)]


def test_streams_that_are_too_many_by_the_new_bound_go_at_once() -> None:
    stage = a_stage()
    ended(stage, "a", "b", "c")

    effects = tune(stage, finished_bytes_max=1)

    assert [effect.job_ids for effect in only(effects, ef.DropLogs)] == [("a", "b")]


def test_sessions_that_are_too_many_by_the_new_bound_go_at_once() -> None:
    stage = a_stage()
    for number in range(3):
        ended(stage, f"t{number}", strict=False, session=bytes([number]) * 16)

    tune(stage, sessions_max=1)

    assert [key[1][0] for key in stage.core.state.sessions] == [2]


def test_a_session_that_has_had_as_many_turns_as_the_new_bound_allows_keeps_no_kv() -> None:
    stage = a_stage(host=HostPlan(session_turns_max=8))
    for name in ("one", "two"):
        stage.submit(make_task(name, strict=False, session=b"s"))
        stage.finish(name)
    assert stage.core.state.sessions["tenant", b"s"].seat is not None

    effects = tune(stage, session_turns_max=2)

    assert len(only(effects, ef.NoteEviction)) == 1
    assert violations(stage.core.state, stage.now) == []


def test_a_turn_that_runs_when_the_bound_sinks_below_it_leaves_no_kv() -> None:
    stage = a_stage(host=HostPlan(session_turns_max=8))
    stage.submit(make_task("one", strict=False, session=b"s"))
    stage.finish("one")
    stage.submit(make_task("two", strict=False, session=b"s"))
    tune(stage, session_turns_max=1)

    stage.finish("two")

    assert stage.core.state.sessions["tenant", b"s"].seat is None
    assert violations(stage.core.state, stage.now) == []
