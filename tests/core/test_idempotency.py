"""The same submit twice: one job, one answer, or a conflict."""

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.wire.codes import Code, Reason
from tests.core.builders import make_task, only, ready_stage


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
