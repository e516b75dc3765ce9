"""Rate limits: what a token costs, who gets the next one, and that a hint is kept."""

import random
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.plan import ClassBounds, PoolPlan
from supervisor.core.rates import BUCKETS_MAX, GRACE_MS, PROMISES_PER_BUCKET_MAX, Rates
from supervisor.core.refusals import Refused
from supervisor.core.revisions import RolloutKind
from supervisor.core.tasks import Task
from supervisor.wire.codes import Code, Priority, Reason
from tests.core.builders import Stage, make_plan, make_task, only, ready_stage
from tests.core.rollout_stage import rollout_stage, share

MANY = 100_000


def limited(rps: float, burst: float, pool_id: str = "p0", **given: Any) -> PoolPlan:
    """A pool that limits interactive tasks alone."""
    bounds = {Priority.INTERACTIVE: ClassBounds(MANY, rps, burst), Priority.BATCH: ClassBounds(MANY)}
    return make_plan(pool_id, queue_capacity=MANY, queue_bytes_max=10**9, classes=bounds, **given)


def make_limited(rps: float, burst: float) -> Stage:
    return ready_stage(limited(rps, burst))


def send(stage: Stage, name: str, *, batch: bool = False, **given: Any) -> Refused | None:
    """Submit a task now; gives its refusal, None where it is let in."""
    task = make_task(name, batch=batch, strict=False, admitted_ms=stage.now, **given)
    effects = stage.give(ev.TaskSubmitted(task))
    for effect in only(effects, ef.CommitAccept):
        stage.give(ev.AcceptsCommitted((effect.task.job_id,)))
    refusals = only(effects, ef.AnswerRefused)
    return refusals[0].refused if refusals else None


def hint_of(refused: Refused | None) -> int:
    assert refused is not None
    assert (refused.code, refused.reason, refused.is_retriable) == (Code.ADMISSION_REJECT, Reason.RATE_LIMIT, True)
    assert refused.retry_after_ms is not None
    return refused.retry_after_ms


@pytest.mark.orch("ORCH-3006")
def test_a_burst_passes_and_then_one_task_for_each_token() -> None:
    stage = make_limited(rps=10, burst=3)

    answers = [send(stage, f"t{n}") for n in range(4)]

    assert answers[:3] == [None, None, None]
    assert hint_of(answers[3]) == 100
    stage.now += 100
    assert send(stage, "t3") is None


@pytest.mark.orch("ORCH-3006")
def test_two_who_are_refused_are_not_promised_the_same_token() -> None:
    stage = make_limited(rps=10, burst=1)
    send(stage, "t0")

    hints = [hint_of(send(stage, f"t{n}")) for n in range(1, 5)]

    assert hints == [100, 200, 300, 400]
    for number, at_ms in enumerate(hints, start=1):
        stage.now = at_ms
        assert send(stage, f"t{number}") is None


def test_a_newcomer_does_not_take_the_token_of_one_who_was_told_to_wait() -> None:
    stage = make_limited(rps=10, burst=1)
    send(stage, "t0")
    hint_of(send(stage, "t1"))

    stage.now = 150

    newcomer, promised = send(stage, "late"), send(stage, "t1")
    assert hint_of(newcomer) == 50
    assert promised is None


def test_a_retry_before_its_time_keeps_its_token_and_its_moment() -> None:
    stage = make_limited(rps=10, burst=1)
    send(stage, "t0")
    hint_of(send(stage, "t1"))
    hint_of(send(stage, "t2"))
    stage.now = 40

    assert hint_of(send(stage, "t1")) == 60
    assert hint_of(send(stage, "t2")) == 160


def test_a_token_that_was_not_fetched_goes_to_whoever_comes() -> None:
    stage = make_limited(rps=10, burst=1)
    send(stage, "t0")
    hint_of(send(stage, "t1"))

    stage.now = 101 + GRACE_MS

    assert send(stage, "late") is None
    assert hint_of(send(stage, "t1")) > 0


def test_callers_who_never_come_back_cost_their_client_a_delay_and_not_its_rate() -> None:
    stage = make_limited(rps=10, burst=1)

    passed = 0
    for number in range(600):  # 20 a second for 30 s, each under a new name
        stage.now = number * 50.0
        passed += send(stage, f"t{number}") is None

    assert 300 - 10 * (GRACE_MS + 100) / 1_000 - 1 <= passed <= 301


@pytest.mark.orch("ORCH-3006")
def test_a_retry_at_its_hint_passes_also_while_newcomers_press() -> None:
    stage, dice = make_limited(rps=20, burst=5), random.Random(7)
    due = [(dice.uniform(0, 5_000), f"t{n}") for n in range(300)]
    retried = passed = 0

    while due:
        due.sort()
        at_ms, name = due.pop(0)
        stage.now = max(stage.now, at_ms)
        retried += name.endswith("'")
        refused = send(stage, name.rstrip("'"))
        if refused is None:
            passed += name.endswith("'")
        else:
            due.append((stage.now + hint_of(refused) + dice.uniform(0, 1_000), name.rstrip("'") + "'"))

    assert retried > 150
    assert passed == retried


@pytest.mark.orch("ORCH-3006")
@settings(max_examples=60, deadline=None)
@given(
    rps=st.sampled_from((0.5, 3, 20, 1_000)),
    burst=st.sampled_from((1, 2, 7)),
    steps=st.lists(st.tuples(st.floats(0, 900), st.integers(0, 4), st.booleans()), min_size=1, max_size=120),
)
def test_never_more_pass_than_the_burst_and_what_flowed_in(
    rps: float, burst: float, steps: list[tuple[float, int, bool]]
) -> None:
    """Whoever comes, again or anew, early or late; and whoever comes at the hint passes."""
    stage, hints, passed = make_limited(rps, burst), dict[str, float](), 0
    for number, (gap, again, is_patient) in enumerate(steps):
        name = [*hints, f"t{number}"][-1 - again] if again <= len(hints) else f"t{number}"
        hint = hints.get(name)
        stage.now = max(stage.now + gap, hint if is_patient and hint is not None else 0)
        is_in_time = hint is not None and hint <= stage.now <= hint + GRACE_MS - 1
        refused = send(stage, name)
        if refused is None:
            passed += 1
            hints.pop(name, None)
        else:
            assert not is_in_time
            hints[name] = stage.now + hint_of(refused)

    assert passed <= burst + rps * stage.now / 1_000 + 1e-6


def test_a_token_that_was_fetched_is_gone() -> None:
    stage = make_limited(rps=10, burst=50)
    for number in range(50):
        send(stage, f"t{number}")
    hint_of(send(stage, "promised"))
    stage.now = 100
    send(stage, "promised")

    stage.now = 100 + GRACE_MS + 100

    passed = [send(stage, f"later{number}") is None for number in range(30)]
    assert passed.count(True) == (GRACE_MS + 100) / 100


def test_a_repeat_of_a_known_task_costs_nothing() -> None:
    stage = make_limited(rps=1, burst=2)
    send(stage, "t0")

    repeats = [send(stage, f"again{n}", task_id="t0") for n in range(5)]

    assert repeats == [None] * 5
    assert send(stage, "t1") is None


def test_a_submit_that_is_refused_for_another_reason_costs_nothing() -> None:
    bounds = {Priority.INTERACTIVE: ClassBounds(1, 0.001, 2.0), Priority.BATCH: ClassBounds(1)}
    stage = ready_stage(make_plan(queue_capacity=1, classes=bounds))
    send(stage, "running")
    stage.give(ev.TaskSubmitted(make_task("waits", batch=True)))
    stage.give(ev.AcceptsCommitted(("waits",)))

    full = send(stage, "full")
    stage.finish("running")

    assert full is not None
    assert full.reason is Reason.QUEUE_FULL
    assert send(stage, "full") is None


def test_a_prompt_that_the_engine_counts_is_paid_for_once_whatever_comes_of_it() -> None:
    stage = make_limited(rps=0.001, burst=2)
    send(stage, "t0", prompt_bytes=5_000)
    stage.give(ev.TokensCounted("t0", 10))
    stage.give(ev.AcceptsCommitted(("t0",)))
    send(stage, "t1", prompt_bytes=5_000)
    stage.give(ev.TokensCounted("t1", 10_000))

    refused = send(stage, "t2")

    assert stage.task("t0").job_id == "t0"
    assert hint_of(refused) == 1_000_000


def test_keys_and_classes_have_buckets_of_their_own() -> None:
    bounds = dict.fromkeys(Priority, ClassBounds(MANY, 0.001, 1.0))
    stage = ready_stage(make_plan(queue_capacity=MANY, classes=bounds))

    answers = [
        send(stage, "a", client_id="k1"),
        send(stage, "b", client_id="k2"),
        send(stage, "c", client_id="k1", batch=True),
        send(stage, "d", client_id="k1", batch=True),
        send(stage, "e", client_id="k1"),
    ]

    assert [answer is None for answer in answers] == [True, True, True, False, False]


def test_replicas_share_a_bucket_also_while_their_engine_is_upgraded() -> None:
    stage = ready_stage(limited(0.001, 2, "p0"), limited(0.001, 2, "p1", devices=(1,)))
    send(stage, "a")
    stage.lose("p1")
    stage.pass_ms(5_000)
    stage.serve("p1", version="b101")

    answers = [send(stage, name) for name in ("b", "c", "d")]

    assert len({replica.set_id for replica in stage.core.state.replicas.values()}) == 2
    assert [answer is None for answer in answers] == [True, False, False]


@pytest.mark.orch("ORCH-3006")
@pytest.mark.parametrize("kind", [RolloutKind.RELOAD, RolloutKind.CONFIG, RolloutKind.CANARY])
def test_another_revision_goes_on_with_the_buckets_of_the_pool(kind: RolloutKind) -> None:
    stage = rollout_stage(limited(0.001, 2))
    send(stage, "a")
    canary = share(10_000) if kind is RolloutKind.CANARY else None
    stage.begin(kind, canary=canary, classes=stage.replica().plan.classes, slots=9)
    stage.come_up("p0+2")

    answers = [send(stage, name) for name in ("b", "c")]

    assert stage.task("b").set_id == stage.replica("p0+2").set_id
    assert [answer is None for answer in answers] == [True, False]


@pytest.mark.orch("ORCH-3006")
def test_after_a_restart_pools_of_one_alias_share_their_buckets_though_their_models_differ() -> None:
    stage = ready_stage(
        limited(0.001, 1, "p0"), limited(0.001, 1, "p1", devices=(1,), model_digest="sha256:" + "d" * 64)
    )
    send(stage, "a")

    assert hint_of(send(stage, "b")) > 0


def test_another_model_in_the_place_of_a_pool_has_buckets_of_its_own() -> None:
    stage = rollout_stage(limited(0.001, 1))
    send(stage, "a")
    refs = frozenset({"x"})
    stage.begin(RolloutKind.CONFIG, classes=stage.replica().plan.classes, model_ref="x", model_refs=refs)
    stage.come_up("p0+2")

    assert send(stage, "b", model_ref="x") is None


def test_another_limit_holds_for_the_next_task() -> None:
    stage = rollout_stage(limited(0.001, 1))
    send(stage, "a")
    assert hint_of(send(stage, "b")) > 0

    stage.give(ev.PoolsChanged(ticket="c", generation=2, tuned=(limited(10, 1),)))

    assert send(stage, "b") is None
    assert hint_of(send(stage, "c")) == 100


# The table


def charge(rates: Rates, stage: Stage, client: str, now_ms: float) -> Task:
    task = make_task(f"t-{client}-{now_ms}", client_id=client)
    rates.charge(task, stage.home(), now_ms)
    return task


def test_full_buckets_are_forgotten_and_nobody_can_tell() -> None:
    rates, stage = Rates(), make_limited(rps=10, burst=1)
    for number in range(3_000):
        charge(rates, stage, f"k{number}", number * 100.0)

    assert len(rates) <= 3
    assert rates.refuse(make_task("x", client_id="k0"), stage.home(), 300_000) is None
    assert rates.refuse(make_task("y", client_id="k2999"), stage.home(), 299_901) is not None


def test_there_are_never_more_buckets_than_the_bound() -> None:
    rates, stage = Rates(), make_limited(rps=0.001, burst=1)
    for number in range(BUCKETS_MAX + 50):
        charge(rates, stage, f"k{number}", 0)

    assert len(rates) <= BUCKETS_MAX
    assert rates.refuse(make_task("x", client_id=f"k{BUCKETS_MAX + 49}"), stage.home(), 0) is not None


def test_promises_of_one_bucket_have_a_bound_and_the_hints_beyond_it_are_the_next_free_token() -> None:
    rates, stage = Rates(), make_limited(rps=1_000, burst=1)
    charge(rates, stage, "k", 0)

    hints = [
        hint_of(rates.refuse(make_task(f"t{n}", client_id="k"), stage.home(), 0))
        for n in range(PROMISES_PER_BUCKET_MAX + 3)
    ]

    assert hints[:3] == [1, 2, 3]
    assert hints[-3:] == [PROMISES_PER_BUCKET_MAX + 1] * 3
