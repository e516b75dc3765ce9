"""A self-test on demand: it has a slot of its own for its time, and changes nothing."""

from typing import Any

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.invariants import violations
from supervisor.core.lifecycle import Phase
from supervisor.wire.codes import Code, Reason
from tests.core.builders import Stage, make_plan, make_task, only, ready_stage, started
from tests.core.rollout_stage import rollout_stage

EVERY_MS = 60_000


def a_stage(**given: Any) -> Stage:
    return ready_stage(make_plan(wall_ms=600_000, **given))


def ask(stage: Stage) -> list[ef.Effect]:
    effects = stage.give(ev.SelfTestRequested("t", "p0"))
    assert violations(stage.core.state, stage.now) == []
    return effects


def end(stage: Stage, test: ef.RunLiveTest) -> list[ef.Effect]:
    effects = stage.give(ev.SelfTestOver(test.pool_id, test.incarnation, test.run_id))
    assert violations(stage.core.state, stage.now) == []
    return effects


def refusal_of(effects: list[ef.Effect]) -> tuple[Code, Reason | None]:
    (answer,) = only(effects, ef.AnswerRefused)
    return answer.refused.code, answer.refused.reason


@pytest.mark.orch("ORCH-3049")
def test_it_takes_a_slot_for_its_time_and_a_task_waits_for_its_end() -> None:
    stage = a_stage(slots=1)
    (test,) = only(ask(stage), ef.RunLiveTest)
    waiting = stage.submit(make_task("a"))
    after = end(stage, test)

    assert only(waiting, ef.StartRun) == []
    assert started(after) == [("a", "p0")]
    assert stage.replica().phase is Phase.READY


def test_it_is_refused_while_every_slot_is_taken_and_while_another_runs() -> None:
    stage = a_stage(slots=1)
    stage.submit(make_task("a"))
    busy = ask(stage)
    other = a_stage(slots=2)
    ask(other)

    assert refusal_of(busy) == (Code.ADMISSION_REJECT, Reason.BUSY)
    assert refusal_of(ask(other)) == (Code.ADMISSION_REJECT, Reason.BUSY)


def test_a_worker_that_is_not_ready_has_nothing_to_test() -> None:
    stage = a_stage(slots=1)
    stage.give(ev.EngineExited("p0", stage.replica().incarnation, kind="crash", cause="gone"))

    assert refusal_of(ask(stage))[0] is Code.POOL_UNREADY


def test_the_end_of_a_test_of_an_earlier_worker_frees_nothing() -> None:
    stage = a_stage(slots=1)
    (test,) = only(ask(stage), ef.RunLiveTest)
    stage.give(ev.SelfTestOver("p0", test.incarnation + 1, test.run_id))
    load_then = stage.replica().load
    end(stage, test)
    stage.give(ev.SelfTestOver("p0", test.incarnation, test.run_id))

    assert (load_then, stage.replica().load) == (1, 0)


def test_probes_go_on_after_a_test_that_stood_in_the_way_of_one() -> None:
    stage = a_stage(slots=1, probe_every_ms=EVERY_MS)
    (test,) = only(ask(stage), ef.RunLiveTest)
    during = stage.pass_ms(EVERY_MS)
    end(stage, test)

    assert only(during, ef.ProbeIdleEngine) == []
    assert len(only(stage.pass_ms(EVERY_MS), ef.ProbeIdleEngine)) == 1


def test_the_worker_that_the_pool_serves_with_now_is_tested() -> None:
    stage = rollout_stage()
    stage.roll()

    (test,) = only(ask(stage), ef.RunLiveTest)

    assert test.pool_id == stage.pool().current == "p0+2"


def test_a_pool_that_is_not_there_is_refused() -> None:
    effects = a_stage().give(ev.SelfTestRequested("t", "nobody"))

    assert refusal_of(effects) == (Code.INVALID_PARAMS, Reason.NOT_FOUND)
