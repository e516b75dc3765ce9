"""Tenants in turn inside a class: shares by weight whatever the sizes, an order that holds, and honest places."""

import random
from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from supervisor.core import events as ev
from supervisor.core.fair import QUANTUM_TOKENS, FairLane
from supervisor.core.plan import HostPlan, TenantPlan
from supervisor.core.tasks import Task
from supervisor.core.waitlist import BATCH_EVERY, Waitlist
from supervisor.wire.codes import QueueOrder
from tests.core.builders import make_plan, make_task, ready_stage, started

WEIGHTS = {"light": 1, "heavy": 2}


def make_lane(weights: dict[str, int] | None = None) -> FairLane:
    return FairLane(lambda tenant: (weights or {}).get(tenant, 1))


def push(lane: FairLane, tenant: str, *sizes: int) -> list[Task]:
    """One task for each size in expected tokens, named by tenant and number."""
    tasks = [
        make_task(f"{tenant}{len(lane)}-{number}", tenant=tenant, expected_tokens=size)
        for number, size in enumerate(sizes)
    ]
    for task in tasks:
        lane.push(task)
    return tasks


def take(lane: FairLane) -> Task:
    head = lane.head()
    assert head is not None
    lane.take(head)
    return head


def go_round(lane: FairLane, victim: Task) -> int:
    """All others push one more whenever one of theirs went. Gives the dispatches until the victim's, or a bound."""
    for count in range(10_000):
        task = take(lane)
        if task is victim:
            return count
        lane.hold()
        push(lane, task.tenant, task.expected_tokens)
    return 10_000


def order(lane: FairLane) -> list[str]:
    """The tenants in the order in which all that waits would go."""
    return [take(lane).tenant for _ in range(len(lane))]


@pytest.mark.orch("ORCH-3036")
@settings(max_examples=80, deadline=None)
@given(
    light=st.lists(st.integers(1, 5_000), min_size=40, max_size=40),
    heavy=st.lists(st.integers(1, 5_000), min_size=80, max_size=80),
    others=st.lists(st.tuples(st.sampled_from("xyz"), st.integers(1, 5_000)), max_size=30),
)
def test_two_that_wait_get_tokens_by_their_weights_whatever_the_size_of_their_tasks(
    light: list[int], heavy: list[int], others: list[tuple[str, int]]
) -> None:
    lane = make_lane(WEIGHTS)
    push(lane, "light", *light)
    push(lane, "heavy", *heavy)
    for tenant, size in others:
        push(lane, tenant, size)
    got = Counter[str]()

    while {task.tenant for task in lane} >= {"light", "heavy"}:
        task = take(lane)
        got[task.tenant] += task.expected_tokens
        lead = got["heavy"] / 2 - got["light"]
        assert abs(lead) <= QUANTUM_TOKENS + max(light) + max(heavy) / 2


def test_a_flood_of_one_tenant_does_not_make_another_wait_behind_it() -> None:
    lane = make_lane()
    push(lane, "flood", *[64] * 1_000)
    lane.hold()
    push(lane, "calm", 64, 64)

    tenants = order(lane)

    assert tenants.index("calm") <= QUANTUM_TOKENS // 64
    assert tenants.count("calm") == 2


def test_those_that_send_little_go_within_one_round_of_each_other() -> None:
    lane = make_lane()
    for name in "abcdef":
        push(lane, name, 200, 200)

    assert order(lane) == [*"abcdef", *"abcdef"]


@pytest.mark.orch("ORCH-3036")
@settings(max_examples=80, deadline=None)
@given(
    others=st.lists(st.tuples(st.integers(1, 2_000), st.integers(1, 3)), min_size=1, max_size=6),
    size=st.integers(1, 5_000),
    joins_after=st.integers(0, 20),
)
def test_tenants_that_come_back_as_soon_as_one_went_keep_nobody_waiting_for_ever(
    others: list[tuple[int, int]], size: int, joins_after: int
) -> None:
    lane = make_lane()
    for number, (each, depth) in enumerate(others):
        push(lane, f"o{number}", *[each] * depth)
    for _ in range(joins_after):
        task = take(lane)
        push(lane, task.tenant, task.expected_tokens)
    (victim,) = push(lane, "victim", size)

    went_before = go_round(lane, victim)

    rounds = -(-size // QUANTUM_TOKENS) + 1
    most_of_others = sum(max(1, (rounds * QUANTUM_TOKENS + each) // each + 1) for each, _ in others)
    assert went_before <= most_of_others


def test_one_that_went_and_cancels_the_rest_does_not_go_twice_in_a_round() -> None:
    lane = make_lane()
    push(lane, "a", 64, 64)
    (other,) = push(lane, "b", 300)
    push(lane, "c", 64)
    for _ in range(20):
        if (gone := take(lane)) is other:
            return
        for task in [each for each in lane if each.tenant == gone.tenant]:
            lane.remove(task)
        push(lane, gone.tenant, 64, 64)

    pytest.fail("the other never went")


def test_one_that_comes_back_in_the_same_round_is_told_that_its_turn_is_in_the_next() -> None:
    lane = make_lane()
    push(lane, "a", 64)
    push(lane, "b", *[64] * 8)
    take(lane)
    newcomer = make_task("again", tenant="a", expected_tokens=64)

    said = lane.ahead_of(newcomer)

    assert tokens_before(lane, newcomer) <= said.expected_tokens
    assert said.expected_tokens <= 2 * QUANTUM_TOKENS


def test_one_that_waits_alone_goes_first_in_first_out() -> None:
    lane = make_lane()
    tasks = push(lane, "a", 5_000, 1, 300, 70_000, 2)

    assert [take(lane) for _ in tasks] == tasks


def test_what_was_saved_up_is_gone_once_nothing_waits() -> None:
    lane = make_lane()
    push(lane, "a", 10)
    push(lane, "b", *[100] * 20)
    while take(lane).tenant != "a":
        pass
    for _ in range(10):
        take(lane)
    push(lane, "a", *[100] * 20)

    assert Counter(order(lane)[:10])["a"] <= 5 + QUANTUM_TOKENS // 100


def test_a_task_that_is_cancelled_leaves_no_credit_to_its_tenant() -> None:
    lane = make_lane()
    (huge,) = push(lane, "a", 1_000_000)
    push(lane, "b", *[100] * 2_000)
    for _ in range(1_500):
        take(lane)
    push(lane, "a", *[100] * 500)
    lane.remove(huge)

    first = Counter(order(lane)[:100])
    assert abs(first["a"] - first["b"]) <= 2 * QUANTUM_TOKENS // 100 + 2


def test_a_head_without_room_stays_the_head_whoever_comes() -> None:
    lane = make_lane()
    (head,) = push(lane, "a", 90_000)
    lane.hold()
    push(lane, "b", 1)
    push(lane, "c", 1)

    assert lane.head() is head


def test_a_task_that_lost_its_worker_goes_first_and_is_not_paid_for_twice() -> None:
    lane = make_lane()
    push(lane, "a", 200, 200)
    push(lane, "b", 200, 200)
    lost = take(lane)
    lane.push_front(lost)

    assert take(lane) is lost
    assert order(lane) == ["b", "a", "b"]


def test_tasks_without_tokens_do_not_keep_the_turn_for_ever() -> None:
    lane = make_lane()
    push(lane, "a", *[0] * 1_000)
    push(lane, "b", 64)

    assert order(lane).index("b") <= QUANTUM_TOKENS


def tokens_before(lane: FairLane, newcomer: Task) -> int:
    """What really goes before it: it is pushed, and the lane is run down."""
    lane.push(newcomer)
    tokens = 0
    while (task := take(lane)) is not newcomer:
        tokens += task.expected_tokens
    return tokens


@pytest.mark.parametrize("seed", range(30))
def test_what_is_said_to_be_ahead_is_what_goes_first(seed: int) -> None:
    dice = random.Random(seed)
    weights = {name: dice.choice((1, 1, 2, 5)) for name in "abcdefgh"}
    lane = make_lane(weights)
    for _ in range(dice.randint(0, 300)):
        push(lane, dice.choice("aaaabbbcdefg"), dice.choice((1, 64, 200, 900, 4_000)))
    for _ in range(dice.randint(0, len(lane) // 2)):
        take(lane)
    newcomer = make_task("new", tenant=dice.choice("abgh"), expected_tokens=dice.choice((1, 300, 9_000)))

    said = lane.ahead_of(newcomer)

    tokens = tokens_before(lane, newcomer)
    a_turn_of_each = sum(QUANTUM_TOKENS * weight + 4_000 for weight in weights.values())
    assert tokens <= said.expected_tokens <= tokens + a_turn_of_each


@pytest.mark.parametrize("seed", range(10))
def test_a_place_in_the_line_is_near_the_real_one(seed: int) -> None:
    dice = random.Random(seed)
    lane = make_lane()
    for _ in range(400):
        push(lane, dice.choice("aaaaaabbbcde"), dice.randint(50, 150))
    ranks = {task.job_id: lane.rank(task) for task in lane}

    real = [take(lane).job_id for _ in range(len(lane))]

    worst = max(abs(ranks[name] - place) for place, name in enumerate(real))
    assert worst <= 5 * (QUANTUM_TOKENS // 50)


# In the waitlist and in the core


def make_fair() -> Waitlist:
    return Waitlist(QueueOrder.FAIR, lambda tenant: WEIGHTS.get(tenant, 1))


def test_the_floor_of_batch_is_the_same_in_fair_order() -> None:
    waitlist = make_fair()
    for number in range(30):
        waitlist.push(make_task(f"i{number}", tenant=f"t{number % 3}"))
    waitlist.push(make_task("b", batch=True, tenant="t9"))

    names = []
    while (head := waitlist.head(0)) is not None:
        waitlist.take(head, 0)
        names.append(head.job_id)

    assert names.index("b") == BATCH_EVERY - 1


FAIR = HostPlan(tenants={"heavy": TenantPlan(weight=2)})


def fair_tasks(tenant: str, count: int) -> list[Task]:
    return [make_task(f"{tenant}{n}", tenant=tenant, strict=False, expected_tokens=256) for n in range(count)]


@pytest.mark.orch("ORCH-3036")
def test_a_pool_in_fair_order_serves_tenants_by_their_weights() -> None:
    stage = ready_stage(make_plan(queue_order=QueueOrder.FAIR), host=FAIR)
    stage.submit(make_task("running"), *fair_tasks("light", 12), *fair_tasks("heavy", 12))
    served = []

    for _ in range(13):
        (running,) = stage.core.state.runs.values()
        served += [name.rstrip("0123456789") for name, _ in started(stage.finish(running))]

    assert Counter(served[:12]) == {"light": 4, "heavy": 8}


def test_a_newcomer_of_a_calm_tenant_is_told_a_near_place() -> None:
    stage = ready_stage(make_plan(queue_order=QueueOrder.FAIR), host=FAIR)
    stage.submit(make_task("running"), *fair_tasks("flood", 60))

    stage.submit(*fair_tasks("calm", 1))

    assert stage.task("calm0").queue_position <= 2
    assert stage.task("flood59").queue_position == 59


def test_a_calm_tenant_is_not_refused_for_a_deadline_that_only_a_flood_would_miss() -> None:
    stage = ready_stage(make_plan(queue_order=QueueOrder.FAIR), host=FAIR)
    for number in range(4):
        stage.submit(*fair_tasks(f"before{number}-", 1))
        stage.now += 1_000
        stage.finish(f"before{number}-0")
    stage.submit(make_task("running"), *fair_tasks("flood", 60))
    flood, calm = fair_tasks("flood-late", 1)[0], fair_tasks("calm", 1)[0]
    flood.tenant, flood.deadline_at_ms, calm.deadline_at_ms = "flood", stage.now + 9_000, stage.now + 9_000

    assert stage.refusal(flood).reason == "deadline"
    stage.submit(calm)


def test_a_strict_head_that_waits_for_an_empty_worker_keeps_its_turn_among_tenants() -> None:
    stage = ready_stage(make_plan(slots=2, queue_order=QueueOrder.FAIR), host=FAIR)
    stage.submit(*fair_tasks("busy", 2), make_task("strict", tenant="a", expected_tokens=5_000))
    stage.submit(*(make_task(f"soft{n}", tenant=f"b{n}", strict=False) for n in range(5)))

    first = started(stage.finish("busy0"))
    second = started(stage.finish("busy1"))

    assert first == []
    assert second == [("strict", "p0")]


def test_waiting_tasks_that_move_to_another_set_keep_the_order_of_their_tenants() -> None:
    stage = ready_stage(make_plan(queue_order=QueueOrder.FAIR), host=FAIR)
    stage.submit(make_task("running"), *fair_tasks("a", 3), *fair_tasks("b", 3))
    for version in ("b101", "b100"):
        stage.lose()
        stage.pass_ms(5_000)
        stage.serve(version=version)

    names = []
    while stage.core.state.runs:
        (running,) = stage.core.state.runs.values()
        names.append(running)
        stage.give(ev.ReadersCame(running))
        stage.finish(running)

    assert [name for name in names if name != "running"] == ["a0", "b0", "a1", "b1", "a2", "b2"]


@pytest.mark.orch("ORCH-3036")
def test_a_large_task_goes_though_two_tenants_always_come_back() -> None:
    stage = ready_stage(make_plan(queue_order=QueueOrder.FAIR))
    large = make_task("large", tenant="calm", strict=False, expected_tokens=QUANTUM_TOKENS + 44)
    small = [make_task(f"{name}-0", tenant=name, strict=False, expected_tokens=64) for name in "bc"]
    stage.submit(make_task("x"), *small, large)

    served: list[str] = []
    while "large" not in served and len(served) < 50:
        (running,) = stage.core.state.runs.values()
        served.append(running)
        stage.finish(running)
        stage.settle()
        stage.done.clear()
        (now,) = stage.core.state.runs.values()
        if now != "large":
            again = f"{now[0]}-{len(served)}"
            stage.submit(make_task(again, tenant=now[0], strict=False, expected_tokens=64))

    assert "large" in served
