"""What the operator asks for: drain and resume of a pool, halt of the daemon."""

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.lifecycle import Phase
from supervisor.core.tasks import Ending, Running, Waiting
from supervisor.wire.codes import Code, Reason
from tests.core.builders import BOTH, NONE, error_of, make_plan, make_stage, make_task, only, ready_stage, started

# Drain and resume


def test_a_drain_lets_running_tasks_end_and_holds_the_waiting() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"), make_task("next"))
    stage.give(ev.DrainRequested("p0", 60_000))

    effects = stage.finish("t")

    assert started(effects) == []
    assert isinstance(stage.task("next").phase, Waiting)
    assert stage.replica().phase is Phase.READY


def test_waiting_tasks_go_to_a_sibling() -> None:
    stage = ready_stage(make_plan("p0"), make_plan("p1"))
    stage.submit(make_task("a"), make_task("b"), make_task("c"))
    stage.give(ev.DrainRequested("p0", 60_000))

    assert started(stage.finish("a")) == []
    assert started(stage.finish("b")) == [("c", "p1")]


def test_at_its_deadline_a_drain_ends_what_runs_and_what_waits() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"), make_task("next"))
    stage.give(ev.DrainRequested("p0", 10_000))
    before = stage.pass_ms(9_999)

    stage.answer_aborts(stage.pass_ms(1), emitted=3)

    assert only(before, ef.AbortRun) == []
    running, waiting = error_of(stage.outcome("t")), error_of(stage.outcome("next"))
    assert (running.code, running.reason) == (Code.WORKER_RESET, Reason.DRAINING)
    assert (waiting.code, waiting.reason) == (Code.POOL_UNAVAILABLE, Reason.DRAINING)


def test_waiting_tasks_of_a_drained_pool_wait_on_for_a_sibling_that_can_come_back() -> None:
    stage = ready_stage(make_plan("p0"), make_plan("p1"))
    stage.submit(make_task("a"), make_task("b"), make_task("c"))
    stage.give(ev.DrainRequested("p0", 10_000))
    stage.answer_aborts(stage.pass_ms(10_000))

    assert isinstance(stage.task("c").phase, Waiting)


def test_two_drained_siblings_hold_their_tasks_until_the_later_deadline() -> None:
    stage = ready_stage(make_plan("p0"), make_plan("p1"))
    stage.submit(make_task("a"), make_task("b"), make_task("c"))
    stage.give(ev.DrainRequested("p0", 10_000))
    stage.give(ev.DrainRequested("p1", 20_000))
    stage.answer_aborts(stage.pass_ms(19_999))
    held = isinstance(stage.task("c").phase, Waiting)

    stage.answer_aborts(stage.pass_ms(1))

    assert held
    assert error_of(stage.outcome("c")).reason is Reason.DRAINING


def test_a_record_that_is_written_after_the_drains_deadline_ends_at_once() -> None:
    stage = ready_stage()
    stage.give(ev.TaskSubmitted(make_task("t")))
    stage.give(ev.DrainRequested("p0", 1_000))
    stage.pass_ms(1_000)

    stage.give(ev.AcceptsCommitted(("t",)))

    assert error_of(stage.outcome("t")).reason is Reason.DRAINING


def test_a_drained_worker_that_crashes_starts_again_and_takes_nothing() -> None:
    stage = ready_stage()
    stage.give(ev.DrainRequested("p0", 600_000))
    stage.lose()
    stage.pass_ms(2_000)
    stage.serve()

    assert stage.replica().phase is Phase.READY
    assert stage.replica().is_serving is False


def test_resume_undoes_a_drain_and_its_deadline() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"), make_task("next"))
    stage.give(ev.DrainRequested("p0", 10_000))
    stage.finish("t")

    effects = stage.give(ev.ResumeRequested("p0"))

    assert started(effects) == [("next", "p0")]
    assert only(stage.pass_ms(20_000), ef.AbortRun) == []


def test_the_last_drain_sets_the_deadline() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))
    stage.give(ev.DrainRequested("p0", 10_000))
    stage.give(ev.DrainRequested("p0", 30_000))

    assert only(stage.pass_ms(29_999), ef.AbortRun) == []
    assert only(stage.pass_ms(1), ef.AbortRun) == [ef.AbortRun(1)]


def test_resume_retries_at_once_what_backs_off() -> None:
    stage = ready_stage()
    stage.lose()

    assert len(only(stage.give(ev.ResumeRequested("p0")), ef.VerifyModel)) == 1


# Halt


def test_a_halt_dispatches_nothing_and_turns_idle_workers_off() -> None:
    stage = ready_stage(make_plan("p0"), make_plan("p1"))
    stage.submit(make_task("a"))

    effects = stage.give(ev.HaltRequested(10_000))

    assert only(effects, ef.StopEngine) == [ef.StopEngine("p1", 2)]
    assert isinstance(stage.task("a").phase, Running)


def test_a_halt_completes_once_all_workers_are_off_and_all_ends_are_on_disk() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"), make_task("next"))
    stage.give(ev.HaltRequested(10_000))
    stop = stage.finish("t")
    off = stage.give(ev.EngineStopped("p0", 1))
    stage.settle()

    assert only(stop, ef.StopEngine) == [ef.StopEngine("p0", 1)]
    assert only(off, ef.CompleteHalt) == []
    assert only(stage.done, ef.CompleteHalt) == [ef.CompleteHalt()]
    assert isinstance(stage.task("next").phase, Waiting), "it stays on disk for the next daemon"


def test_at_its_deadline_a_halt_ends_what_runs() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))
    stage.give(ev.HaltRequested(10_000))

    stage.answer_aborts(stage.pass_ms(10_000), emitted=1)

    error = error_of(stage.outcome("t"))
    assert (error.code, error.reason, error.is_retriable) == (Code.WORKER_RESET, Reason.SHUTDOWN, True)
    assert len(only(stage.done, ef.StopEngine)) == 1


def test_a_second_halt_stops_at_once() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))
    stage.give(ev.HaltRequested(600_000))
    stage.give(ev.HaltRequested(0))

    assert only(stage.pass_ms(0), ef.AbortRun) == [ef.AbortRun(1)]


@pytest.mark.parametrize("inventory", [None, BOTH, NONE])
def test_a_halt_completes_from_any_phase_without_an_engine(inventory: ev.Event | None) -> None:
    stage = make_stage()
    if inventory is not None:
        stage.give(inventory)

    effects = stage.give(ev.HaltRequested(10_000))

    assert only(effects, ef.CompleteHalt) == [ef.CompleteHalt()]
    assert stage.replica().phase is Phase.OFF


def test_a_halt_waits_for_records_on_their_way_to_the_disk() -> None:
    stage = make_stage()
    stage.give(BOTH)
    stage.serve()
    stage.give(ev.TaskSubmitted(make_task("t")))
    stage.give(ev.HaltRequested(10_000))
    off = stage.give(ev.EngineStopped("p0", 1))

    effects = stage.give(ev.AcceptsCommitted(("t",)))

    assert only(off, ef.CompleteHalt) == []
    assert [type(effect) for effect in effects] == [ef.AnswerAccepted, ef.CompleteHalt]
    assert isinstance(stage.task("t").phase, Waiting)


def test_while_halting_a_lost_worker_ends_no_waiting_task() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"), make_task("next"))
    stage.give(ev.HaltRequested(10_000))
    stage.lose()
    stage.give(NONE)

    assert not any(isinstance(stage.task(name).phase, Ending) for name in ("t", "next"))


def test_nothing_undoes_a_halt() -> None:
    stage = ready_stage()
    stage.give(ev.HaltRequested(10_000))
    stage.give(ev.EngineStopped("p0", 1))

    later = [stage.give(event) for event in (ev.ResumeRequested("p0"), ev.DrainRequested("p0", 1), BOTH, NONE)]

    assert later == [[], [], [], []]
    assert stage.replica().phase is Phase.OFF
