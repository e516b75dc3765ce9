"""Coming to rest: nothing new is dispatched, strict tasks may be cut at the deadline, others keep the daemon here."""

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.invariants import violations
from supervisor.wire.codes import Determinism
from tests.core.builders import BOTH, make_plan, make_stage, make_task, ready_stage, started


def answers(effects: list[ef.Effect]) -> list[ef.Effect]:
    return [each for each in effects if isinstance(each, ef.CompleteQuiesce | ef.RefuseQuiesce)]


def test_an_idle_daemon_is_at_rest_at_once() -> None:
    stage = ready_stage()

    assert answers(stage.give(ev.QuiesceRequested(1_000))) == [ef.CompleteQuiesce(cut=0)]


def test_what_runs_may_end_and_nothing_new_is_dispatched() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"), make_task("next"))
    asked = stage.give(ev.QuiesceRequested(1_000))
    effects = stage.finish("t")
    before = answers(stage.done)
    stage.settle()

    assert answers(asked) == before == []  # its end is on disk before anything else
    assert started(effects) == []
    assert answers(stage.done) == [ef.CompleteQuiesce(cut=0)]
    assert violations(stage.core.state, stage.now) == []


def test_tasks_are_admitted_while_it_comes_to_rest() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))
    stage.give(ev.QuiesceRequested(1_000))
    stage.submit(make_task("later"))

    assert "later" in stage.core.state.tasks
    assert len(stage.home().waiting) == 1


def test_at_the_deadline_a_strict_task_is_cut() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))
    stage.give(ev.QuiesceRequested(1_000))
    before = stage.pass_ms(999)

    assert answers(before) == []
    assert answers(stage.pass_ms(1)) == [ef.CompleteQuiesce(cut=1)]


def test_at_the_deadline_a_task_that_cannot_be_run_again_refuses_the_rest_and_all_goes_on() -> None:
    stage = ready_stage(make_plan("p0", slots=2, determinism=Determinism.BEST_EFFORT))
    stage.submit(make_task("t", strict=False))
    stage.give(ev.QuiesceRequested(1_000))
    stage.submit(make_task("next", strict=False))
    effects = stage.pass_ms(1_000)

    assert answers(effects) == [ef.RefuseQuiesce(1)]
    assert started(effects) == [("next", "p0")]
    assert violations(stage.core.state, stage.now) == []


def test_a_daemon_that_is_told_to_stop_does_not_come_to_rest() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))
    stage.give(ev.QuiesceRequested(1_000))

    assert answers(stage.give(ev.HaltRequested(5_000))) == [ef.RefuseQuiesce(0)]


def test_an_engine_that_is_being_started_is_waited_for() -> None:
    stage = make_stage()
    stage.give(BOTH)
    inc = stage.replica().incarnation
    stage.give(ev.ModelVerified("p0", inc, "d"))
    stage.measure()
    asked = stage.give(ev.QuiesceRequested(0))
    spawned = stage.give(ev.EngineSpawned("p0", inc, 100, 9_000))

    assert answers(asked) == []
    assert answers(spawned) == [ef.CompleteQuiesce(cut=0)]


def test_it_goes_on_when_the_next_daemon_does_not_take_over() -> None:
    stage = ready_stage()
    stage.give(ev.QuiesceRequested(1_000))
    stage.submit(make_task("t"))

    assert started(stage.give(ev.QuiesceEnded())) == [("t", "p0")]


def test_the_answer_comes_once() -> None:
    stage = ready_stage()
    stage.give(ev.QuiesceRequested(1_000))
    stage.submit(make_task("t"))
    stage.pass_ms(5_000)

    assert answers(stage.done) == [ef.CompleteQuiesce(cut=0)]
