"""Promised places in a full queue: the line itself, and what a refused task finds when it comes back at its hint."""

import heapq
import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.full_queue import RETRY_FULL_MS
from supervisor.core.invariants import violations
from supervisor.core.promises import (
    AHEAD_MS_MAX,
    GRACE_MS,
    LEAD_MS,
    PROMISES_MAX,
    PROMISES_PER_TENANT_MAX,
    SPACING,
    Promises,
)
from supervisor.core.tasks import Running
from supervisor.wire.codes import FinishReason, FullPolicy, Priority, Reason
from tests.core.builders import Stage, make_plan, make_task, only, ready_stage

pytestmark = pytest.mark.orch("ORCH-3005", "ORCH-3025")
INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH


def given(promises: Promises, *names: str, first_ms: float = 10_000.0, priority: Priority = INTERACTIVE) -> list[float]:
    return [promises.give(("t", name), priority, 500, 0.0, first_ms, 100.0) for name in names]


def test_places_are_promised_in_the_order_of_the_refusals() -> None:
    promises = Promises()

    assert given(promises, "a", "b", "c") == pytest.approx([10_000, 10_000 + 100 * SPACING, 10_000 + 200 * SPACING])


def test_the_classes_stand_in_lines_of_their_own() -> None:
    promises = Promises()
    given(promises, "a", "b")

    assert given(promises, "c", priority=BATCH) == [10_000.0]


def test_a_place_is_kept_from_shortly_before_it_is_due_until_the_grace_is_over() -> None:
    promises = Promises()
    given(promises, "a", first_ms=10_000.0)

    kept = {}
    for now_ms in (10_000 - LEAD_MS - 1, 10_000 - LEAD_MS, 10_000 + GRACE_MS - 1, 10_000 + GRACE_MS):
        promises.settle(now_ms)
        kept[now_ms] = (promises.kept.total, promises.kept.size_bytes)
    assert list(kept.values()) == [(0, 0), (1, 500), (1, 500), (0, 0)]
    assert promises.find(("t", "a")) is None


def test_a_place_that_was_fetched_is_not_kept() -> None:
    promises = Promises()
    given(promises, "a")
    promises.settle(10_000.0)
    promises.fetch(("t", "a"))
    promises.settle(10_000.0 + GRACE_MS)

    assert (promises.kept.total, promises.kept.size_bytes, len(promises)) == (0, 0, 0)


def test_a_promise_that_was_not_kept_is_kept_on_and_lapses_later() -> None:
    promises = Promises()
    given(promises, "a")
    promises.settle(10_000.0)
    promises.give_again(("t", "a"), 10_000.0, 11_000.0, 100.0)

    promises.settle(10_000.0 + GRACE_MS)
    assert promises.kept.total == 1
    promises.settle(11_000.0 + GRACE_MS)
    assert promises.kept.total == 0


def test_a_renewed_promise_that_is_not_due_soon_keeps_no_place_yet() -> None:
    promises = Promises()
    given(promises, "a", "b")
    promises.settle(10_200.0)
    promises.give_again(("t", "a"), 10_000.0, 10_000.0, 100.0)
    due_ms = promises.give_again(("t", "b"), 10_000.0, 10_000.0, 5_000.0)

    kept = {}
    for now_ms in (10_200.0, due_ms - LEAD_MS - 1, due_ms - LEAD_MS, due_ms + GRACE_MS):
        promises.settle(now_ms)
        kept[now_ms - due_ms] = promises.kept.total
    assert due_ms == 15_000
    assert list(kept.values()) == [1, 0, 1, 0]
    assert len(promises) == 0


def test_the_time_of_an_earlier_promise_keeps_no_place_for_a_later_one() -> None:
    promises = Promises()
    given(promises, "a", first_ms=5_000.0)
    promises.fetch(("t", "a"))
    given(promises, "a", first_ms=20_000.0)
    promises.settle(5_000.0)

    assert promises.kept.total == 0


def test_the_table_is_bounded_and_gives_the_time_of_a_place_beyond() -> None:
    promises = Promises()
    for number in range(PROMISES_MAX):
        promises.give((f"t{number % 8}", f"a{number}"), INTERACTIVE, 500, 0.0, 1_000.0, 1.0)

    beyond_ms = promises.give(("t0", "beyond"), INTERACTIVE, 500, 0.0, 1_000.0, 1.0)
    assert (len(promises), promises.find(("t0", "beyond"))) == (PROMISES_MAX, None)
    assert beyond_ms == pytest.approx(1_000 + SPACING * PROMISES_MAX, rel=0.01)


def test_one_tenant_never_fills_the_table() -> None:
    promises = Promises()
    for number in range(PROMISES_PER_TENANT_MAX):
        promises.give(("t", f"a{number}"), INTERACTIVE, 500, 0.0, 1_000.0, 1.0)

    beyond = [promises.give(("t", name), INTERACTIVE, 500, 0.0, 1_000.0, 1.0) for name in ("b", "c")]
    assert beyond == pytest.approx([1_000 + SPACING * (PROMISES_PER_TENANT_MAX + each) for each in (0, 1)])
    assert len(promises) == PROMISES_PER_TENANT_MAX
    promises.give(("other", "a"), INTERACTIVE, 500, 0.0, 1_000.0, 1.0)
    assert promises.find(("other", "a")) is not None


def test_the_long_line_of_one_tenant_is_not_that_of_another() -> None:
    promises = Promises()
    given(promises, *(f"flood{number}" for number in range(1_000)), first_ms=100 * SPACING)

    assert promises.give(("other", "a"), INTERACTIVE, 500, 0.0, 1.0, 100.0) == pytest.approx(2 * 100 * SPACING)


def test_tenants_in_line_share_the_places_that_come_free() -> None:
    promises, due = Promises(), dict[str, list[float]]()
    for number in range(100):
        for tenant in "abc":
            due_ms = promises.give((tenant, f"{number}"), INTERACTIVE, 500, 0.0, 1.0, 100.0)
            due.setdefault(tenant, []).append(due_ms)

    steps = [later - sooner for own in due.values() for sooner, later in pairwise(own[5:])]
    assert steps == pytest.approx([3 * 100 * SPACING] * len(steps))


def test_nothing_is_promised_beyond_the_horizon() -> None:
    promises = Promises()

    assert promises.give(("t", "a"), INTERACTIVE, 1, 0.0, AHEAD_MS_MAX + 1.0, 10.0) == AHEAD_MS_MAX + 1.0
    assert len(promises) == 0


def test_a_line_of_tasks_that_never_come_back_is_not_waited_for() -> None:
    promises = Promises()
    given(promises, *(f"gone{number}" for number in range(300)), first_ms=1_000.0)
    now_ms = 1_000.0 + 100 * SPACING * 100 + GRACE_MS
    promises.settle(now_ms)

    due_ms = promises.give(("t", "new"), INTERACTIVE, 500, now_ms, now_ms, 100.0)
    assert promises.shown < 0.01
    assert due_ms - now_ms < 0.15 * 200 * 100 * SPACING


# In the queue ---------------------------------------------------------------------------------------------------------


def busy(capacity: int = 4, service_ms: float = 1_000.0, **given: Any) -> Stage:
    """One slot whose service time is known, one task that runs, and a queue that is full."""
    stage = ready_stage(make_plan(queue_capacity=capacity, **given))
    for number in range(3):
        stage.submit(make_task(f"seen{number}", admitted_ms=stage.now))
        stage.pass_ms(service_ms)
        stage.finish(f"seen{number}")
    stage.settle()
    stage.submit(*(make_task(f"w{number}", admitted_ms=stage.now) for number in range(capacity + 1)))
    return stage


def hint(stage: Stage, name: str, **given: Any) -> float:
    refused = stage.refusal(make_task(name, job_id=f"{name}@{stage.now}", **given))
    assert refused.reason is Reason.QUEUE_FULL
    assert refused.retry_after_ms is not None
    return refused.retry_after_ms


def is_admitted(stage: Stage, name: str) -> bool:
    task = make_task(name, job_id=f"{name}@{stage.now}", task_id=name, admitted_ms=stage.now)
    effects = stage.give(ev.TaskSubmitted(task))
    assert violations(stage.core.state, stage.now) == []
    return bool(only(effects, ef.CommitAccept))


def finish_running(stage: Stage) -> None:
    (job_id,) = [name for name, task in stage.core.state.tasks.items() if isinstance(task.phase, Running)]
    stage.finish(job_id)


def test_a_retry_at_its_hint_gets_the_place_that_a_newcomer_does_not() -> None:
    stage = busy()
    wait_ms = hint(stage, "promised", task_id="promised")
    stage.pass_ms(wait_ms)
    finish_running(stage)

    assert not is_admitted(stage, "newcomer")
    assert is_admitted(stage, "promised")


def test_a_retry_that_comes_early_is_told_what_is_left() -> None:
    stage = busy()
    wait_ms = hint(stage, "promised", task_id="promised")
    stage.pass_ms(wait_ms / 4)

    assert hint(stage, "promised", task_id="promised") == pytest.approx(wait_ms * 3 / 4, abs=1)


def test_a_place_that_nobody_fetches_goes_to_a_newcomer() -> None:
    stage = busy()
    wait_ms = hint(stage, "promised", task_id="promised")
    stage.pass_ms(wait_ms + GRACE_MS)
    finish_running(stage)

    assert is_admitted(stage, "newcomer")


def test_a_promise_that_could_not_be_kept_is_told_a_short_wait() -> None:
    stage = busy()
    stage.pass_ms(hint(stage, "promised", task_id="promised"))

    assert hint(stage, "promised", task_id="promised") <= 1_000


def test_kept_places_leave_no_slot_without_work() -> None:
    stage = busy(capacity=4)
    for number in range(8):
        hint(stage, f"no-show-{number}", task_id=f"no-show-{number}")
    stage.pass_ms(4_000.0)
    for _ in range(4):
        finish_running(stage)

    assert is_admitted(stage, "newcomer")


def test_a_place_that_is_kept_for_one_class_is_none_for_the_other() -> None:
    stage = busy()
    stage.pass_ms(hint(stage, "promised", task_id="promised"))
    finish_running(stage)

    assert stage.refusal(make_task("b", batch=True, admitted_ms=stage.now)).reason is Reason.QUEUE_FULL


def test_while_both_classes_wait_batch_is_promised_every_ninth_place() -> None:
    stage = busy(capacity=6)
    stage.pass_ms(1_000)
    finish_running(stage)
    stage.submit(make_task("b", batch=True, admitted_ms=stage.now))
    batch = [hint(stage, f"batch{number}", batch=True) for number in range(2)]
    interactive = [hint(stage, f"interactive{number}") for number in range(2)]

    assert batch[1] - batch[0] == pytest.approx(9_000 * SPACING, abs=1)
    assert interactive[1] - interactive[0] == pytest.approx(9_000 / 8 * SPACING, abs=1)


def test_a_task_that_is_refused_for_its_deadline_takes_no_place_and_moves_nobody() -> None:
    stage = busy(capacity=40)
    honest_ms = hint(busy(capacity=40), "honest")
    late = stage.refusal(make_task("late", deadline_at_ms=stage.now + 1.0))

    assert late.reason is Reason.DEADLINE
    assert late.retry_after_ms is not None
    assert late.retry_after_ms > RETRY_FULL_MS
    assert len(stage.home().promises) == 0
    assert hint(stage, "honest") == honest_ms


def test_a_flood_of_one_tenant_sends_no_other_away_for_long() -> None:
    stage = busy()
    for number in range(500):
        hint(stage, f"flood{number}")

    assert hint(stage, "h", tenant="honest") <= 2 * 1_000 * SPACING + 1


def test_one_large_promise_does_not_shut_the_queue() -> None:
    stage = busy(queue_bytes_max=10_000)
    stage.pass_ms(hint_of_bytes(stage, "large", 10_000))
    finish_running(stage)
    finish_running(stage)
    stage.home().promises.settle(stage.now)

    assert stage.home().promises.kept.size_bytes == 10_000
    assert is_admitted(stage, "newcomer")


def hint_of_bytes(stage: Stage, name: str, size_bytes: int) -> float:
    refused = stage.refusal(make_task(name, size_bytes=size_bytes))
    assert refused.reason is Reason.QUEUE_BYTES
    assert refused.retry_after_ms is not None
    return refused.retry_after_ms


def test_a_queue_that_drops_its_oldest_keeps_no_places() -> None:
    stage = busy(full_policy=FullPolicy.DROP_LRU)

    assert is_admitted(stage, "newcomer")
    assert len(stage.home().promises) == 0


def test_nobody_is_dropped_to_keep_a_place() -> None:
    stage = ready_stage(make_plan(queue_capacity=3, full_policy=FullPolicy.SHED_LOW_PRIORITY))
    for number in range(3):
        stage.submit(make_task(f"seen{number}", admitted_ms=stage.now))
        stage.pass_ms(1_000)
        stage.finish(f"seen{number}")
    stage.submit(*(make_task(f"b{number}", batch=True, admitted_ms=stage.now) for number in range(4)))
    stage.pass_ms(hint(stage, "promised", batch=True))
    finish_running(stage)

    assert not is_admitted(stage, "newcomer")
    assert stage.core.state.counts.dropped == 0


def test_before_anything_is_known_a_hint_promises_nothing() -> None:
    stage = ready_stage(make_plan(queue_capacity=1))
    stage.submit(make_task("a"), make_task("b"))

    assert hint(stage, "c") == 1_000
    assert len(stage.home().promises) == 0


def overload(
    seed: int, *, load: float, slots: int, capacity: int, seconds: float, batch_share: float = 0.0
) -> Counter[str]:
    """An open loop of callers: each that is refused comes back exactly at its hint, until it is let in."""
    dice, stage, counts = (
        random.Random(seed),
        ready_stage(make_plan(queue_capacity=capacity, slots=slots)),
        Counter[str](),
    )
    for warm in range(3):  # before anything is known a hint is no promise
        stage.submit(make_task(f"warm{warm}", strict=False, admitted_ms=stage.now))
        stage.pass_ms(100.0)
        stage.finish(f"warm{warm}")
    service_ms, arrivals, number = 100.0, list[tuple[float, str, int]](), 0
    due_ms = stage.now
    while due_ms < seconds * 1_000:
        due_ms += dice.expovariate(load * slots / service_ms)
        arrivals.append((due_ms, f"t{number}", 0))
        number += 1
    heapq.heapify(arrivals)
    ends = list[tuple[float, int]]()
    while arrivals and arrivals[0][0] < 2 * seconds * 1_000:
        at_ms, name, tries = heapq.heappop(arrivals)
        while ends and ends[0][0] <= at_ms:
            end_ms, run_id = heapq.heappop(ends)
            stage.now = max(stage.now, end_ms)
            note_starts(stage, stage.give(ev.RunFinished(run_id, FinishReason.STOP, 1, 3, 3, 5.0)), ends, dice)
        stage.now = max(stage.now, at_ms)
        is_batch = int(name[1:]) % 100 < batch_share * 100
        task = make_task(name, job_id=f"{name}/{tries}", task_id=name, batch=is_batch, strict=False, admitted_ms=at_ms)
        effects = stage.give(ev.TaskSubmitted(task))
        refusals = only(effects, ef.AnswerRefused)
        counts["first" if not tries else "retries"] += 1
        if refusals:
            assert refusals[0].refused.retry_after_ms is not None
            heapq.heappush(arrivals, (at_ms + refusals[0].refused.retry_after_ms, name, tries + 1))
        else:
            counts["retried well"] += tries > 0
            counts["admitted"] += 1
            note_starts(stage, stage.give(ev.AcceptsCommitted((task.job_id,))), ends, dice)
        if counts["first"] % 500 == 0:
            assert violations(stage.core.state, stage.now) == []
            stage.settle()
    return counts


def note_starts(stage: Stage, effects: list[ef.Effect], ends: list[tuple[float, int]], dice: random.Random) -> None:
    for effect in only(effects, ef.StartRun):
        heapq.heappush(ends, (stage.now + 100.0 * dice.uniform(0.5, 1.5), effect.run_id))


@pytest.mark.parametrize("load", [2.0, 10.0])
@pytest.mark.parametrize(("slots", "capacity"), [(1, 8), (4, 16), (8, 64)])
def test_nine_of_ten_retries_at_the_hint_succeed_under_overload(load: float, slots: int, capacity: int) -> None:
    counts = overload(1, load=load, slots=slots, capacity=capacity, seconds=10)

    assert counts["retries"] > 100
    assert counts["retried well"] / counts["retries"] >= 0.9, counts


def test_no_slot_stands_idle_for_promises_under_overload() -> None:
    counts = overload(2, load=10.0, slots=4, capacity=16, seconds=10)

    assert counts["admitted"] >= 0.8 * 20 * 4 * 10
