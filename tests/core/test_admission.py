"""Whether a task is let in: each rule of admission, in its order."""

from typing import Any

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.admission import COUNTING_MAX
from supervisor.core.plan import HostPlan, TenantPlan
from supervisor.core.quotas import PROMPT_TOKENS_EXTRA
from supervisor.wire.codes import Code, Determinism, Engine, Reason, Workload
from tests.core.builders import BOTH, NONE, Stage, make_plan, make_stage, make_task, only, ready_stage, started


def test_a_task_that_fits_is_written_before_anybody_hears_of_it() -> None:
    stage = ready_stage()

    effects = stage.give(ev.TaskSubmitted(make_task("t")))

    assert effects == [ef.CommitAccept(stage.task("t"))]


def test_the_answer_comes_with_the_commit() -> None:
    stage = ready_stage()

    answer, *rest = stage.submit(make_task("t"))[1:]

    assert answer == ef.AnswerAccepted("t", "t", "t", 0, 0)
    assert started(rest) == [("t", "p0")]


# 1. The host


@pytest.mark.orch("ORCH-2007")
def test_a_stopping_daemon_takes_nothing() -> None:
    stage = ready_stage()
    stage.give(ev.HaltRequested(1_000))

    refused = stage.refusal(make_task("t"))

    assert (refused.code, refused.reason, refused.is_retriable) == (Code.POOL_UNAVAILABLE, Reason.SHUTDOWN, True)
    assert refused.retry_after_ms


def test_a_disk_that_takes_nothing_refuses_before_the_ack_and_recovers() -> None:
    stage = ready_stage()
    stage.give(ev.JournalChanged(is_writable=False, cause="no space"))
    refused = stage.refusal(make_task("t"))
    stage.give(ev.JournalChanged(is_writable=True, cause=None))

    assert (refused.code, refused.reason) == (Code.POOL_UNAVAILABLE, Reason.DISK)
    assert started(stage.submit(make_task("t"))) == [("t", "p0")]


def test_a_record_that_does_not_reach_the_disk_is_as_if_it_had_never_been() -> None:
    stage = ready_stage(make_plan(queue_capacity=1))
    stage.give(ev.TaskSubmitted(make_task("t")))
    stage.give(ev.TaskSubmitted(make_task("again", task_id="t")))

    answers = only(stage.give(ev.AcceptsFailed(("t",))), ef.AnswerRefused)

    assert [(answer.ticket, answer.refused.reason) for answer in answers] == [
        ("t", Reason.DISK),
        ("again", Reason.DISK),
    ]
    assert stage.core.state.tasks == {}
    assert started(stage.submit(make_task("t"))) == [("t", "p0")], "its room and its id are free again"


# 2. What is asked for


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"model_ref": "other"}, Reason.MODEL),
        ({"engine": Engine.VLLM}, Reason.MODEL),
        ({"workload": Workload.EMBEDDING}, Reason.WORKLOAD),
        ({"sampler_profile_version": "v9"}, Reason.FIELD),
        ({"ctx": 4097}, Reason.CTX),
    ],
)
@pytest.mark.orch("ORCH-3014")
def test_what_no_pool_offers_is_invalid_and_final(asked: dict[str, Any], reason: Reason) -> None:
    refused = ready_stage().refusal(make_task("t", **asked))

    assert (refused.code, refused.reason, refused.is_retriable) == (Code.INVALID_PARAMS, reason, False)


def test_what_is_asked_for_is_judged_even_while_nothing_is_ready() -> None:
    assert make_stage().refusal(make_task("t", ctx=9999)).reason is Reason.CTX


def test_a_model_is_found_under_each_of_its_names() -> None:
    stage = ready_stage(make_plan(model_refs=frozenset({"m", "repo:a/b"})))

    assert started(stage.submit(make_task("t", model_ref="repo:a/b"))) == [("t", "p0")]


@pytest.mark.orch("ORCH-3014")
def test_a_task_goes_to_the_pool_that_has_its_context() -> None:
    stage = ready_stage(make_plan("a", ctx=1024), make_plan("b", ctx=4096))

    assert started(stage.submit(make_task("t", ctx=2048))) == [("t", "b")]


def test_the_smaller_context_is_preferred_where_both_are_idle() -> None:
    stage = ready_stage(make_plan("a", ctx=4096), make_plan("b", ctx=2048))

    assert started(stage.submit(make_task("t", ctx=1024))) == [("t", "b")]


# 3. Somebody serves


@pytest.mark.orch("ORCH-3002", "ORCH-3010", "ORCH-2007")
def test_a_loading_pool_is_unready_with_a_hint() -> None:
    stage = make_stage()
    stage.give(BOTH)
    stage.load()

    refused = stage.refusal(make_task("t"))

    assert (refused.code, refused.reason, refused.pool_id) == (Code.POOL_UNREADY, Reason.LOADING, "p0")
    assert refused.retry_after_ms


@pytest.mark.orch("ORCH-2007")
def test_the_hint_of_a_pool_that_backs_off_reaches_past_its_next_start() -> None:
    stage = ready_stage()
    stage.lose()
    due = stage.replica().due_ms

    refused = stage.refusal(make_task("t"))

    assert due is not None
    assert refused.retry_after_ms is not None
    assert refused.retry_after_ms > due - stage.now


@pytest.mark.orch("ORCH-1101", "ORCH-3018")
def test_without_a_gpu_the_pool_is_unavailable() -> None:
    stage = make_stage()
    stage.give(NONE)

    refused = stage.refusal(make_task("t"))

    assert (refused.code, refused.reason) == (Code.POOL_UNAVAILABLE, Reason.NO_GPU)


@pytest.mark.orch("ORCH-3018")
def test_a_lost_gpu_is_told_from_a_host_without_any() -> None:
    stage = make_stage(make_plan(devices=(7,)))
    stage.give(BOTH)

    assert stage.refusal(make_task("t")).reason is Reason.GPU_LOST


def test_a_pool_that_can_never_start_is_unavailable() -> None:
    stage = make_stage(make_plan(unplannable="no adapter"))
    stage.give(BOTH)

    refused = stage.refusal(make_task("t"))

    assert (refused.code, refused.reason) == (Code.POOL_UNAVAILABLE, Reason.ENGINE)


def test_a_drained_pool_is_unready() -> None:
    stage = ready_stage()
    stage.give(ev.DrainRequested("p0", 1_000))

    refused = stage.refusal(make_task("t"))

    assert (refused.code, refused.reason) == (Code.POOL_UNREADY, Reason.DRAINING)


def test_the_most_hopeful_pool_speaks_for_all() -> None:
    stage = make_stage(make_plan("a", devices=(7,)), make_plan("b"))
    stage.give(BOTH)

    refused = stage.refusal(make_task("t"))

    assert (refused.code, refused.pool_id) == (Code.POOL_UNREADY, "b")


# 4. The token budget


def counted(stage: Stage, name: str, tokens: int | None, **given: Any) -> list[ef.Effect]:
    """Submit a task that must be counted, and give the count."""
    (ask,) = stage.give(ev.TaskSubmitted(make_task(name, **given)))
    assert isinstance(ask, ef.CountTokens)
    return stage.give(ev.TokensCounted(name, tokens))


@pytest.mark.orch("ORCH-3015")
@pytest.mark.parametrize("prompt_bytes", [0, 2048 - 64 - PROMPT_TOKENS_EXTRA])
def test_a_prompt_whose_bytes_prove_that_it_fits_is_not_tokenized(prompt_bytes: int) -> None:
    effects = ready_stage().give(ev.TaskSubmitted(make_task("t", prompt_bytes=prompt_bytes)))

    assert [type(effect) for effect in effects] == [ef.CommitAccept]


@pytest.mark.orch("ORCH-3015")
@pytest.mark.parametrize(("tokens", "is_in"), [(2048 - 64, True), (2048 - 63, False)])
def test_a_longer_one_is_tokenized_by_an_engine_and_the_count_decides(tokens: int, is_in: bool) -> None:
    stage = ready_stage()

    effects = counted(stage, "t", tokens, prompt_bytes=2048 - 63 - PROMPT_TOKENS_EXTRA)

    if is_in:
        assert [type(effect) for effect in effects] == [ef.CommitAccept]
    else:
        (answer,) = only(effects, ef.AnswerRefused)
        assert (answer.refused.code, answer.refused.reason) == (Code.INVALID_PARAMS, Reason.TOKEN_BUDGET)


@pytest.mark.orch("ORCH-3015")
def test_max_tokens_that_leave_no_room_are_refused_without_asking_the_engine() -> None:
    refused = ready_stage().refusal(make_task("t", ctx=64, max_tokens=64))

    assert refused.reason is Reason.TOKEN_BUDGET


@pytest.mark.orch("ORCH-3015")
def test_the_context_of_the_slot_is_the_one_that_the_engine_reports() -> None:
    stage = make_stage(make_plan(ctx=None))
    stage.give(BOTH)
    stage.serve(ctx=512)

    assert stage.refusal(make_task("t", max_tokens=512, ctx=512)).reason is Reason.TOKEN_BUDGET
    assert stage.refusal(make_task("t", ctx=513)).reason is Reason.CTX


@pytest.mark.orch("ORCH-3015")
def test_a_task_must_fit_the_smallest_slot_that_it_may_be_given() -> None:
    stage = make_stage(make_plan("a", ctx=None), make_plan("b", ctx=None))
    stage.give(BOTH)
    stage.serve("a", ctx=4096)
    stage.serve("b", ctx=512)

    (effect,) = stage.give(ev.TaskSubmitted(make_task("t", prompt_bytes=1_000)))

    assert not isinstance(effect, ef.CommitAccept), "it might be dispatched to b"


@pytest.mark.orch("ORCH-3015")
def test_no_prompt_is_tokenized_for_a_task_that_is_refused_anyway() -> None:
    stage = ready_stage(make_plan(queue_capacity=1))
    stage.submit(make_task("running"), make_task("waiting"))

    assert stage.refusal(make_task("t", prompt_bytes=4_000)).reason is Reason.QUEUE_FULL


@pytest.mark.orch("ORCH-3015", "ORCH-3036")
def test_no_prompt_is_tokenized_for_a_tenant_over_its_quota() -> None:
    stage = ready_stage(host=HostPlan(tenants={"tenant": TenantPlan(concurrent_jobs=1)}))
    stage.submit(make_task("running"))

    assert stage.refusal(make_task("t", prompt_bytes=4_000)).reason is Reason.QUOTA


def test_only_so_many_prompts_are_tokenized_at_one_time() -> None:
    stage = ready_stage(make_plan(queue_capacity=10_000))
    for number in range(COUNTING_MAX):
        assert only(stage.give(ev.TaskSubmitted(make_task(f"t{number}", prompt_bytes=4_000))), ef.CountTokens)

    refused = stage.refusal(make_task("beyond", prompt_bytes=4_000))

    assert (refused.code, refused.reason, refused.retry_after_ms) == (Code.ADMISSION_REJECT, Reason.QUEUE_FULL, 1_000)
    stage.submit(make_task("short"))
    stage.give(ev.TokensCounted("t0", 5))
    assert only(stage.give(ev.TaskSubmitted(make_task("next", prompt_bytes=4_000))), ef.CountTokens)


def test_an_engine_that_cannot_count_in_time_means_try_again() -> None:
    stage = ready_stage()

    (answer,) = only(counted(stage, "t", None, prompt_bytes=4_000), ef.AnswerRefused)

    assert (answer.refused.code, answer.refused.is_retriable) == (Code.POOL_UNREADY, True)
    assert stage.core.state.counting == {}


def test_a_count_that_comes_after_the_engine_died_is_judged_by_what_serves_then() -> None:
    stage = ready_stage()
    stage.give(ev.TaskSubmitted(make_task("t", prompt_bytes=4_000)))
    stage.lose()

    (answer,) = only(stage.give(ev.TokensCounted("t", 5)), ef.AnswerRefused)

    assert answer.refused.code is Code.POOL_UNREADY


def test_a_count_for_nobody_changes_nothing() -> None:
    assert ready_stage().give(ev.TokensCounted("ghost", 5)) == []


# 5. The deadline


def observed(stage: Stage, service_ms: float, count: int = 3) -> None:
    """Let tasks of 64 expected tokens take `service_ms` each."""
    for n in range(count):
        stage.submit(make_task(f"seen{n}"))
        stage.pass_ms(service_ms)
        stage.finish(f"seen{n}")
    stage.settle()


@pytest.mark.orch("ORCH-3029")
def test_a_start_is_predicted_from_what_was_observed() -> None:
    stage = ready_stage()
    observed(stage, 640)
    stage.submit(make_task("running"), make_task("w1"), make_task("w2"))

    assert [stage.task(name).predicted_start_ms for name in ("running", "w1", "w2")] == [0, 640, 1280]


@pytest.mark.orch("ORCH-3029")
def test_no_start_is_predicted_under_three_samples() -> None:
    stage = ready_stage()
    observed(stage, 640, count=2)
    stage.submit(make_task("running"), make_task("w1"), make_task("w2"))

    assert stage.task("w2").predicted_start_ms is None


def test_a_task_that_would_not_start_in_time_is_refused_with_a_hint() -> None:
    stage = ready_stage()
    observed(stage, 640)
    stage.submit(make_task("running"), make_task("w1"))

    refused = stage.refusal(make_task("t", deadline_at_ms=stage.now + 1_279))

    assert (refused.code, refused.reason, refused.retry_after_ms) == (Code.ADMISSION_REJECT, Reason.DEADLINE, 1_000)
    stage.submit(make_task("t", deadline_at_ms=stage.now + 1_280))


def test_a_strict_task_waits_for_a_worker_of_its_own_and_is_told_so() -> None:
    stage = ready_stage(make_plan(slots=4))
    observed(stage, 10_000)
    stage.submit(make_task("running", strict=False, admitted_ms=stage.now))

    refused = stage.refusal(make_task("late", deadline_at_ms=stage.now + 1_000))
    stage.submit(make_task("strict"))

    assert (refused.reason, refused.retry_after_ms) == (Reason.DEADLINE, 9_200)
    assert stage.task("strict").predicted_start_ms == 10_000


def test_a_slot_beside_another_task_is_free_for_an_ordinary_one() -> None:
    stage = ready_stage(make_plan(slots=4))
    observed(stage, 10_000)
    stage.submit(make_task("running", strict=False), make_task("next", strict=False))

    assert stage.task("next").predicted_start_ms == 0


def test_a_task_whose_deadline_passed_while_its_prompt_was_counted_is_refused_with_a_hint() -> None:
    stage = ready_stage()
    stage.give(ev.TaskSubmitted(make_task("t", prompt_bytes=4_000, deadline_at_ms=500)))
    stage.now = 501

    (answer,) = only(stage.give(ev.TokensCounted("t", 5)), ef.AnswerRefused)

    assert (answer.refused.code, answer.refused.reason) == (Code.ADMISSION_REJECT, Reason.DEADLINE)
    assert answer.refused.retry_after_ms


# Positions


@pytest.mark.orch("ORCH-3029")
def test_a_position_counts_those_that_go_before_on_disk_or_not() -> None:
    stage = ready_stage()
    stage.submit(make_task("running"), make_task("b1", batch=True), make_task("i1"))
    for name in ("i2", "b2", "i3", "b3"):
        stage.give(ev.TaskSubmitted(make_task(name, batch=name.startswith("b"))))

    positions = {name: stage.task(name).queue_position for name in ("b1", "i1", "i2", "b2", "i3", "b3")}

    assert positions == {"b1": 0, "i1": 0, "i2": 1, "b2": 3, "i3": 2, "b3": 5}


def test_determinism_is_no_rule_of_admission() -> None:
    stage = ready_stage(make_plan(determinism=Determinism.BEST_EFFORT, slots=4))

    assert started(stage.submit(make_task("t", strict=True))) == [("t", "p0")]
