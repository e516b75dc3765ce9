"""What ends by time: deadlines of the waiting, watchdogs of the running, the grace of streams without readers."""

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.invariants import violations
from supervisor.core.tasks import Running, Waiting
from supervisor.wire.codes import Code, FinishReason, Reason
from tests.core.builders import error_of, make_plan, make_task, only, ready_stage, started


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


@pytest.mark.parametrize("is_read_again", [False, True])
def test_a_re_run_that_nobody_reads_has_a_grace_of_its_own(*, is_read_again: bool) -> None:
    stage = ready_stage(make_plan(disconnect_grace_ms=5_000))
    stage.submit(make_task("t"))
    stage.give(ev.ReadersLeft("t"))
    stage.lose()
    stage.pass_ms(6_000)
    assert isinstance(stage.task("t").phase, Waiting)
    assert violations(stage.core.state, stage.now) == []
    stage.serve()
    if is_read_again:
        stage.give(ev.ReadersCame("t"))

    before = stage.pass_ms(4_999)
    at_the_end = stage.pass_ms(1)

    assert only(before, ef.AbortRun) == []
    assert len(only(at_the_end, ef.AbortRun)) == (0 if is_read_again else 1)


def test_readers_of_an_unknown_or_finished_task_change_nothing() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))
    stage.give(ev.ReadersLeft("t"))
    stage.finish("t")

    assert stage.give(ev.ReadersLeft("ghost")) == []
    assert stage.give(ev.ReadersLeft("t")) == []
    assert only(stage.pass_ms(10_000), ef.AbortRun) == []
