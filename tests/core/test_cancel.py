"""A cancel in every phase of a task, answered once, with the tokens that it ever emitted; and the slot it frees."""

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.wire.codes import Code, FinishReason
from tests.core.builders import Stage, error_of, make_plan, make_task, only, ready_stage, started


def cancel(stage: Stage, name: str, *, emitted: int = 0) -> list[ef.Effect]:
    """Cancel a task; an aborted run has emitted so many frames."""
    effects = stage.give(ev.CancelRequested("ticket", name))
    return effects + stage.answer_aborts(effects, emitted)


def answered(effects: list[ef.Effect]) -> list[ef.AnswerCancelled]:
    return only(effects, ef.AnswerCancelled)


@pytest.mark.orch("ORCH-3017")
def test_cancel_before_the_commit_waits_for_it_and_never_runs() -> None:
    stage = ready_stage()
    stage.give(ev.TaskSubmitted(make_task("t")))
    early = cancel(stage, "t")

    effects = stage.give(ev.AcceptsCommitted(("t",)))

    assert early == []
    assert [type(effect) for effect in effects] == [ef.AnswerAccepted, ef.AnswerCancelled, ef.CommitFinish]
    assert stage.outcome("t").finish_reason is FinishReason.CANCELED


def test_cancel_of_a_record_that_never_reaches_the_disk_is_answered_too() -> None:
    stage = ready_stage()
    stage.give(ev.TaskSubmitted(make_task("t")))
    cancel(stage, "t")

    assert answered(stage.give(ev.AcceptsFailed(("t",)))) == [ef.AnswerCancelled("ticket", 0)]


@pytest.mark.orch("ORCH-3017")
def test_cancel_while_waiting_ends_the_task_at_once() -> None:
    stage = ready_stage()
    stage.submit(make_task("busy"), make_task("t"))

    assert answered(cancel(stage, "t")) == [ef.AnswerCancelled("ticket", 0)]
    assert stage.outcome("t").finish_reason is FinishReason.CANCELED
    assert len(stage.home().waiting) == 0
    assert stage.core.state.counts.canceled == 1


@pytest.mark.orch("ORCH-3017", "ORCH-3026")
def test_cancel_while_running_answers_with_the_tally_of_the_relay() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))
    first = stage.give(ev.CancelRequested("one", "t"))
    second = stage.give(ev.CancelRequested("two", "t"))

    effects = stage.answer_aborts(first, emitted=4)

    assert first == [ef.AbortRun(1)]
    assert second == []
    assert answered(effects) == [ef.AnswerCancelled("one", 4), ef.AnswerCancelled("two", 4)]
    assert stage.outcome("t").emitted == 4


@pytest.mark.orch("ORCH-3026")
@pytest.mark.parametrize("is_on_disk", [False, True])
def test_cancel_after_the_end_changes_nothing(is_on_disk: bool) -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))
    stage.finish("t", tokens=3)
    if is_on_disk:
        stage.settle()

    assert cancel(stage, "t") == [ef.AnswerCancelled("ticket", 3)]
    assert stage.outcome("t").finish_reason is FinishReason.STOP


@pytest.mark.orch("ORCH-3026")
def test_a_task_that_finishes_while_its_cancel_is_under_way_ends_once() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))
    (abort,) = stage.give(ev.CancelRequested("ticket", "t"))
    assert isinstance(abort, ef.AbortRun)

    effects = stage.finish("t", tokens=3)
    late = stage.give(ev.RunAborted(abort.run_id, None, 0, 0, 0.0))

    assert answered(effects) == [ef.AnswerCancelled("ticket", 3)]
    assert late == []


@pytest.mark.orch("ORCH-3017")
@pytest.mark.parametrize("is_worker_lost", [False, True])
def test_a_cancelled_task_whose_run_breaks_first_is_over_and_never_run_again(is_worker_lost: bool) -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))
    stage.give(ev.CancelRequested("ticket", "t"))

    effects = stage.give(ev.RunFailed(1, "engine", "cut", 2, is_worker_lost=is_worker_lost))

    assert answered(effects) == [ef.AnswerCancelled("ticket", 2)]
    assert stage.outcome("t").finish_reason is FinishReason.CANCELED


@pytest.mark.orch("ORCH-3016")
def test_a_timed_out_run_that_breaks_first_keeps_its_error() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))
    stage.give(ev.RunStalled(1, "idle"))

    stage.give(ev.RunFailed(1, "engine", "cut", 2, is_worker_lost=True))

    assert error_of(stage.outcome("t")).code is Code.DECODE_TIMEOUT


# Slots


@pytest.mark.orch("ORCH-3017")
def test_the_slot_of_an_aborted_run_is_free_only_once_it_was_seen_idle() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"), make_task("next"))
    effects = cancel(stage, "t")

    freed = stage.give(ev.SlotsSeenIdle("p0", 1, (1,)))

    assert only(effects, ef.ConfirmSlotIdle) == [ef.ConfirmSlotIdle("p0", 1, 1, 5_000)]
    assert started(effects) == []
    assert started(freed) == [("next", "p0")]


def test_a_finished_run_gives_its_slot_back_at_once() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"), make_task("next"))

    assert started(stage.finish("t")) == [("next", "p0")]


@pytest.mark.orch("ORCH-3017")
def test_a_slot_that_is_not_freed_costs_the_worker_and_not_the_other_tasks() -> None:
    stage = ready_stage(make_plan(slots=2))
    stage.submit(make_task("t", strict=False), make_task("other", strict=False))
    cancel(stage, "t")

    effects = stage.give(ev.SlotStuck("p0", 1, 1))
    stage.answer_aborts(effects)
    stage.give(ev.EngineStopped("p0", 1))
    stage.pass_ms(2_000)
    stage.serve()

    assert only(effects, ef.StopEngine) == [ef.StopEngine("p0", 1)]
    assert started(stage.done)[-1] == ("other", "p0")
    assert stage.replica().load == 1


def test_a_stuck_slot_that_was_seen_idle_meanwhile_costs_nothing() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))
    cancel(stage, "t")
    stage.give(ev.SlotsSeenIdle("p0", 1, (1,)))

    assert stage.give(ev.SlotStuck("p0", 1, 1)) == []
