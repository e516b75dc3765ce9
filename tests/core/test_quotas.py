"""Quotas of tenants: what counts from when to when, what a refusal says, and that a restart counts the same."""

from typing import Any

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.invariants import violations
from supervisor.core.plan import HostPlan, PoolPlan, TenantPlan
from supervisor.core.quota_hints import RETRY_QUOTA_MS_MAX, RETRY_QUOTA_MS_MIN
from supervisor.core.quotas import PROMPT_TOKENS_EXTRA, Usage
from supervisor.core.refusals import Refused
from supervisor.core.tasks import WAITING, Ended, Outcome, Task
from supervisor.wire.codes import Code, FinishReason, FullPolicy, Reason
from tests.core.builders import Stage, make_plan, make_task, only, ready_stage

KV_BYTES = 1_000


def quota(*plans: PoolPlan, **bounds: int) -> Stage:
    """Ready pools of a host on which the tenant `acme` has these quotas."""
    return ready_stage(*plans, host=HostPlan(tenants={"acme": TenantPlan(**bounds)}))


def acme(name: str, **given: Any) -> Task:
    return make_task(name, **{"tenant": "acme", "strict": False, **given})


def usage(stage: Stage, tenant: str = "acme") -> Usage:
    assert violations(stage.core.state, stage.now) == []
    return stage.core.state.quotas.usage_of(tenant)


def over(refused: Refused) -> int:
    """The hint of a refusal for quota."""
    assert (refused.code, refused.reason, refused.is_retriable) == (Code.ADMISSION_REJECT, Reason.QUOTA, True)
    assert refused.retry_after_ms is not None
    return refused.retry_after_ms


@pytest.mark.orch("ORCH-3036")
def test_a_tenant_has_so_many_jobs_at_once_and_not_one_more() -> None:
    stage = quota(concurrent_jobs=3)
    stage.submit(acme("a"), acme("b"), acme("c"))

    over(stage.refusal(acme("d")))

    stage.submit(make_task("other", tenant="globex"))
    stage.finish("a")
    stage.submit(acme("d"))
    over(stage.refusal(acme("e")))


@pytest.mark.orch("ORCH-3036")
def test_waiting_tasks_count_from_admission_to_dispatch() -> None:
    stage = quota(waiting_tasks=2)
    stage.submit(acme("running"), acme("w1"))
    stage.give(ev.TaskSubmitted(acme("being-written")))

    over(stage.refusal(acme("w3")))

    stage.give(ev.AcceptsCommitted(("being-written",)))
    over(stage.refusal(acme("w3")))
    stage.finish("running")
    stage.submit(acme("w3"))
    assert usage(stage).waiting == 2


@pytest.mark.orch("ORCH-3036")
def test_memory_is_the_kv_of_prompt_and_answer_and_the_request() -> None:
    stage = quota(make_plan(kv_bytes_per_token=KV_BYTES), memory_bytes=400_000)
    one = (100 + PROMPT_TOKENS_EXTRA + 64) * KV_BYTES + 500

    stage.submit(acme("a"), acme("b"))

    assert stage.task("a").memory_bytes == one
    assert usage(stage).memory_bytes == 2 * one
    over(stage.refusal(acme("c")))
    stage.submit(acme("small", prompt_bytes=1, max_tokens=1, size_bytes=10))


@pytest.mark.parametrize(
    ("prompt_bytes", "max_tokens", "tokens"),
    [(0, 16, 24), (1_000, 16, 1_024), (10_000, 48, 2_048)],
)
def test_no_task_needs_more_kv_than_its_context(prompt_bytes: int, max_tokens: int, tokens: int) -> None:
    stage = quota(make_plan(kv_bytes_per_token=KV_BYTES))
    stage.give(ev.TaskSubmitted(acme("a", prompt_bytes=prompt_bytes, max_tokens=max_tokens, size_bytes=7)))
    stage.give(ev.TokensCounted("a", 0))

    assert stage.task("a").memory_bytes == tokens * KV_BYTES + 7


def test_where_nobody_knows_the_kv_the_request_alone_counts() -> None:
    stage = quota(memory_bytes=1_000)

    stage.submit(acme("a"), acme("b"))

    over(stage.refusal(acme("c")))


def test_a_task_that_can_never_fit_is_not_worth_a_retry() -> None:
    stage = quota(make_plan(kv_bytes_per_token=KV_BYTES), memory_bytes=100_000)

    refused = stage.refusal(acme("a"))

    assert (refused.code, refused.reason, refused.is_retriable) == (Code.ADMISSION_REJECT, Reason.QUOTA, False)
    assert "172500 bytes" in refused.message


@pytest.mark.orch("ORCH-3036")
def test_every_end_gives_back_what_was_held_and_only_once() -> None:
    stage = quota(make_plan(full_policy=FullPolicy.DROP_LRU, queue_capacity=2), concurrent_jobs=9)
    stage.submit(acme("finished"), acme("dropped"), acme("running"), acme("cancelled"))
    stage.finish("finished")
    stage.give(ev.CancelRequested("c1", "cancelled"))
    stage.give(ev.CancelRequested("c2", "cancelled"))
    stage.give(ev.TaskSubmitted(acme("never-stored")))
    stage.give(ev.AcceptsFailed(("never-stored",)))
    stage.submit(acme("late", deadline_at_ms=50))
    stage.pass_ms(100)

    assert usage(stage) == Usage(jobs=1, waiting=0, memory_bytes=500, expected_tokens=64)
    stage.settle()
    stage.finish("running")
    assert usage(stage) == Usage()


def test_a_task_cancelled_before_it_is_stored_is_given_back_with_its_record() -> None:
    stage = quota(concurrent_jobs=1)
    stage.give(ev.TaskSubmitted(acme("a")))
    stage.give(ev.CancelRequested("c", "a"))
    before = usage(stage).jobs

    stage.give(ev.AcceptsCommitted(("a",)))

    assert (before, usage(stage).jobs) == (1, 0)


def test_a_task_that_lost_its_worker_waits_again_and_holds_what_it_held() -> None:
    stage = quota(waiting_tasks=1)
    stage.submit(acme("a", strict=True))
    before = usage(stage).waiting

    stage.lose()

    assert (before, usage(stage).waiting, usage(stage).jobs) == (0, 1, 1)


def test_a_repeat_of_a_known_task_is_answered_past_the_quota() -> None:
    stage = quota(concurrent_jobs=1)
    stage.submit(acme("a"))

    (answer,) = only(stage.give(ev.TaskSubmitted(acme("again", task_id="a"))), ef.AnswerAccepted)

    assert answer.job_id == "a"
    assert usage(stage).jobs == 1


def restored(*waiting: Task, finished: tuple[Task, ...] = ()) -> ev.TasksRestored:
    return ev.TasksRestored(waiting, tuple((task, 10) for task in finished))


@pytest.mark.orch("ORCH-3036")
def test_a_restart_counts_what_is_on_disk() -> None:
    plan, host = make_plan(kv_bytes_per_token=KV_BYTES), HostPlan(tenants={"acme": TenantPlan(concurrent_jobs=2)})
    before = ready_stage(plan, host=host)
    before.submit(acme("a"), acme("b", prompt_bytes=9))
    held = usage(before)
    ended = acme("c", phase=Ended(Outcome(finish_reason=FinishReason.STOP), 0.0))
    after = ready_stage(plan, host=host)

    after.give(restored(acme("a", phase=WAITING), acme("b", prompt_bytes=9, phase=WAITING), finished=(ended,)))

    assert usage(after).jobs == 2
    assert usage(after).memory_bytes == held.memory_bytes
    over(after.refusal(acme("d")))


def test_a_restored_task_that_ends_at_once_holds_nothing() -> None:
    stage = quota(concurrent_jobs=1)

    stage.give(restored(acme("gone", model_ref="unknown", phase=WAITING), acme("ran", attempt=1, phase=WAITING)))

    assert usage(stage) == Usage()
    stage.submit(acme("next"))


def test_what_was_accepted_keeps_its_place_where_the_next_config_allows_less() -> None:
    stage = quota(concurrent_jobs=1)

    stage.give(restored(*(acme(f"t{n}", phase=WAITING) for n in range(3))))

    assert usage(stage).jobs == 3
    stage.finish("t0")
    stage.finish("t1")
    over(stage.refusal(acme("new")))
    stage.finish("t2")
    stage.submit(acme("new"))


# When to try again


def serve_some(stage: Stage, service_ms: float) -> None:
    """Enough tasks are served for the forecast to know how long one takes."""
    for number in range(5):
        stage.submit(make_task(f"sample{number}", strict=False))
        stage.now += service_ms
        stage.finish(f"sample{number}")
    stage.settle()


def test_the_hint_is_when_the_first_job_of_the_tenant_will_have_ended() -> None:
    stage = quota(make_plan(slots=2), concurrent_jobs=2)
    serve_some(stage, 8_000)
    stage.submit(acme("a"))
    stage.now += 3_000
    stage.submit(acme("b"))
    stage.now += 1_000

    hint = over(stage.refusal(acme("c")))

    assert hint == pytest.approx(4_000, rel=0.01)
    stage.now += hint
    stage.finish("a")
    stage.submit(acme("c"))


def test_callers_who_are_refused_are_told_one_end_each() -> None:
    stage = quota(make_plan(slots=2), concurrent_jobs=2)
    serve_some(stage, 8_000)
    stage.submit(acme("a"))
    stage.now += 3_000
    stage.submit(acme("b"))

    hints = [over(stage.refusal(acme(f"c{n}"))) for n in range(4)]

    assert hints == pytest.approx([5_000, 8_000, 12_000, 16_000], rel=0.01)
    assert all(over(stage.refusal(acme(f"d{n}"))) <= RETRY_QUOTA_MS_MAX for n in range(50))


def test_one_who_comes_back_too_early_is_told_what_is_left_and_one_in_time_is_first_again() -> None:
    stage = quota(make_plan(slots=2), concurrent_jobs=2)
    serve_some(stage, 8_000)
    stage.submit(acme("a"), acme("b"))
    for name in ("first", "second", "third"):
        over(stage.refusal(acme(name)))
    stage.now += 2_000

    early = over(stage.refusal(acme("first")))
    stage.now += early

    assert early == pytest.approx(6_000, rel=0.01)
    assert over(stage.refusal(acme("first"))) == RETRY_QUOTA_MS_MIN, "the jobs overran: any moment now"
    assert over(stage.refusal(acme("newcomer"))) > 4_000


def test_a_job_that_lost_its_worker_is_not_about_to_end() -> None:
    stage = quota(make_plan("p0"), make_plan("p1", devices=(1,)), concurrent_jobs=1)
    serve_some(stage, 8_000)
    stage.submit(acme("a", strict=True), make_task("other", strict=False))
    stage.now += 7_500

    stage.lose("p0")

    assert usage(stage).waiting == 1
    assert over(stage.refusal(acme("b"))) == pytest.approx(8_000, rel=0.01)


def test_a_task_without_room_in_memory_waits_for_as_many_ends_as_it_needs() -> None:
    stage = quota(make_plan(slots=2, queue_capacity=9), memory_bytes=2_000)
    serve_some(stage, 8_000)
    stage.submit(*(acme(f"t{n}") for n in range(4)))

    one, three = over(stage.refusal(acme("one"))), over(stage.refusal(acme("three", size_bytes=1_500)))

    assert one == pytest.approx(8_000, rel=0.01)
    assert three == pytest.approx(16_000, rel=0.01)
