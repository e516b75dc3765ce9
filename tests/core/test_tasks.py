"""A task's life: the same submit twice, cancel in every phase, deadlines, watchdogs, readers, slots that come free."""

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.invariants import violations
from supervisor.core.tasks import Ended, Running, Waiting
from supervisor.wire.codes import Code, FinishReason, Reason
from tests.core.builders import Stage, error_of, make_plan, make_task, only, ready_stage, started


def cancel(stage: Stage, name: str, *, emitted: int = 0) -> list[ef.Effect]:
    """Cancel a task; an aborted run has emitted so many frames."""
    effects = stage.give(ev.CancelRequested("ticket", name))
    return effects + stage.answer_aborts(effects, emitted)


def answered(effects: list[ef.Effect]) -> list[ef.AnswerCancelled]:
    return only(effects, ef.AnswerCancelled)


# The same submit twice


def test_a_repeated_submit_gets_the_answer_of_the_first() -> None:
    stage = ready_stage()
    stage.submit(make_task("busy"), make_task("t"))

    effects = stage.give(ev.TaskSubmitted(make_task("second", task_id="t")))

    assert effects == [ef.AnswerAccepted("second", "t", "t", 0, None)]


def test_a_repeat_before_the_commit_waits_for_it() -> None:
    stage = ready_stage()
    stage.give(ev.TaskSubmitted(make_task("t")))
    early = stage.give(ev.TaskSubmitted(make_task("second", task_id="t")))

    answers = only(stage.give(ev.AcceptsCommitted(("t",))), ef.AnswerAccepted)

    assert early == []
    assert [(answer.ticket, answer.job_id) for answer in answers] == [("t", "t"), ("second", "t")]


def test_a_repeat_after_the_end_starts_no_second_job() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))
    stage.finish("t")
    stage.settle()

    (answer,) = stage.give(ev.TaskSubmitted(make_task("second", task_id="t")))

    assert isinstance(answer, ef.AnswerAccepted)
    assert answer.job_id == "t"


def test_another_body_under_the_same_id_is_a_conflict() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))

    refused = stage.refusal(make_task("second", task_id="t", digest=b"other"))

    assert (refused.code, refused.reason) == (Code.INVALID_PARAMS, Reason.CONFLICT)


@pytest.mark.orch("ORCH-3024")
def test_ids_of_two_tenants_do_not_meet() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"), make_task("u", task_id="t", tenant="other"))

    assert {task.job_id for task in stage.core.state.tasks.values()} == {"t", "u"}


def test_two_submits_of_one_id_may_both_be_counted_and_only_one_is_accepted() -> None:
    stage = ready_stage()
    for name in ("t", "second"):
        stage.give(ev.TaskSubmitted(make_task(name, task_id="t", prompt_bytes=4_000)))
    stage.give(ev.TokensCounted("t", 5))

    assert stage.give(ev.TokensCounted("second", 5)) == []
    assert len(only(stage.give(ev.AcceptsCommitted(("t",))), ef.AnswerAccepted)) == 2


# Cancel


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


# Deadlines


def test_a_deadline_fires_on_time_while_the_slot_is_taken() -> None:
    stage = ready_stage()
    stage.submit(make_task("busy"), make_task("t", deadline_at_ms=500))
    before = stage.pass_ms(499)

    effects = stage.pass_ms(1)

    assert only(before, ef.CommitFinish) == []
    assert [effect.task.job_id for effect in only(effects, ef.CommitFinish)] == ["t"]
    error = error_of(stage.outcome("t"))
    assert (error.code, error.reason, error.is_retriable) == (Code.DECODE_TIMEOUT, Reason.DEADLINE, True)


def test_a_task_is_not_dispatched_after_its_deadline_when_a_report_overtakes_the_alarm() -> None:
    stage = ready_stage()
    stage.submit(make_task("busy"), make_task("late", deadline_at_ms=500), make_task("next"))
    stage.now = 2_000

    effects = stage.finish("busy")

    assert started(effects) == [("next", "p0")]
    assert error_of(stage.outcome("late")).reason is Reason.DEADLINE


def test_a_record_that_is_written_after_the_deadline_is_not_dispatched() -> None:
    stage = ready_stage()
    stage.give(ev.TaskSubmitted(make_task("t", deadline_at_ms=500)))
    stage.now = 501

    effects = stage.give(ev.AcceptsCommitted(("t",)))

    assert len(only(effects, ef.AnswerAccepted)) == 1
    assert started(effects) == []
    assert error_of(stage.outcome("t")).reason is Reason.DEADLINE


def test_a_dispatched_task_may_outlive_its_deadline() -> None:
    stage = ready_stage()
    stage.submit(make_task("t", deadline_at_ms=500))
    stage.pass_ms(10_000)

    assert isinstance(stage.task("t").phase, Running)


# Watchdogs


@pytest.mark.orch("ORCH-3016")
def test_the_wall_ends_a_run_counted_from_its_dispatch() -> None:
    stage = ready_stage(make_plan(wall_ms=1_000))
    stage.pass_ms(300)
    stage.submit(make_task("t"))
    before = stage.pass_ms(999)

    effects = stage.pass_ms(1)
    stage.answer_aborts(effects, emitted=9)

    assert only(before, ef.AbortRun) == []
    error = error_of(stage.outcome("t"))
    assert (error.code, error.reason, stage.outcome("t").emitted) == (Code.DECODE_TIMEOUT, Reason.WALL, 9)


@pytest.mark.orch("ORCH-3016")
def test_a_stalled_run_is_ended_and_its_slot_seen_idle() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))

    effects = stage.answer_aborts(stage.give(ev.RunStalled(1, "idle")))

    assert error_of(stage.outcome("t")).reason is Reason.STALLED
    assert only(effects, ef.ConfirmSlotIdle) == [ef.ConfirmSlotIdle("p0", 1, 1, 5_000)]


@pytest.mark.orch("ORCH-3016")
def test_a_watchdog_of_a_run_that_is_over_does_nothing() -> None:
    stage = ready_stage(make_plan(wall_ms=1_000))
    stage.submit(make_task("t"))
    stage.finish("t")

    assert stage.give(ev.RunStalled(1, "idle")) == []
    assert only(stage.pass_ms(5_000), ef.AbortRun) == []


# Readers


def test_a_running_task_without_readers_is_cancelled_after_the_grace() -> None:
    stage = ready_stage(make_plan(disconnect_grace_ms=5_000))
    stage.submit(make_task("t"))
    stage.give(ev.ReadersLeft("t"))
    before = stage.pass_ms(4_999)

    stage.answer_aborts(stage.pass_ms(1), emitted=2)

    assert only(before, ef.AbortRun) == []
    assert stage.outcome("t").finish_reason is FinishReason.CANCELED


def test_a_reader_that_comes_back_in_time_saves_it() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))
    stage.give(ev.ReadersLeft("t"))
    stage.pass_ms(3_000)
    stage.give(ev.ReadersCame("t"))

    assert only(stage.pass_ms(30_000), ef.AbortRun) == []


def test_a_grace_that_began_again_counts_from_its_new_start() -> None:
    stage = ready_stage(make_plan(disconnect_grace_ms=5_000))
    stage.submit(make_task("t"))
    stage.give(ev.ReadersLeft("t"))
    stage.pass_ms(3_000)
    stage.give(ev.ReadersCame("t"))
    stage.give(ev.ReadersLeft("t"))

    assert only(stage.pass_ms(4_999), ef.AbortRun) == []
    assert only(stage.pass_ms(1), ef.AbortRun) == [ef.AbortRun(1)]


@pytest.mark.parametrize("grace_ms", [-1])
def test_a_pool_may_let_tasks_run_to_their_end(grace_ms: int) -> None:
    stage = ready_stage(make_plan(disconnect_grace_ms=grace_ms))
    stage.submit(make_task("t"))
    stage.give(ev.ReadersLeft("t"))

    assert only(stage.pass_ms(50_000), ef.AbortRun) == []


def test_a_missing_reader_never_cancels_a_waiting_task() -> None:
    stage = ready_stage()
    stage.submit(make_task("busy"), make_task("t"))
    stage.give(ev.ReadersLeft("t"))
    stage.pass_ms(50_000)

    assert isinstance(stage.task("t").phase, Waiting)


def test_readers_of_an_unknown_or_finished_task_change_nothing() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))
    stage.give(ev.ReadersLeft("t"))
    stage.finish("t")

    assert stage.give(ev.ReadersLeft("ghost")) == []
    assert stage.give(ev.ReadersLeft("t")) == []
    assert only(stage.pass_ms(10_000), ef.AbortRun) == []


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


# Ends


@pytest.mark.orch("ORCH-3025")
def test_a_request_that_the_engine_refuses_is_the_callers_fault() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"), make_task("next"))

    effects = stage.give(ev.RunFailed(1, "token_budget", "too long", 0, is_client_fault=True))

    error = error_of(stage.outcome("t"))
    assert (error.code, error.reason, error.is_retriable) == (Code.INVALID_PARAMS, Reason.TOKEN_BUDGET, False)
    assert started(effects) == [("next", "p0")], "the engine never took the slot"


def test_an_engine_error_ends_the_task_as_worker_reset() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))

    effects = stage.give(ev.RunFailed(1, "no such word", "garbage", 2))

    error = error_of(stage.outcome("t"))
    assert (error.code, error.reason) == (Code.WORKER_RESET, Reason.ENGINE)
    assert len(only(effects, ef.ConfirmSlotIdle)) == 1


def test_an_end_is_final_once_it_is_on_disk() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))
    stage.finish("t")
    stage.now = 900
    stage.settle()

    phase = stage.task("t").phase
    assert isinstance(phase, Ended)
    assert phase.at_ms == 900
    assert stage.task("t").body == b""
    assert violations(stage.core.state, stage.now) == []
