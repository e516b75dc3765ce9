"""What one operation costs does not grow with the number of waiting tasks: counted in calls, not in seconds."""

import gc
import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from supervisor.core import events as ev
from supervisor.core.fair import FairLane
from supervisor.core.waitlist import Waitlist
from supervisor.wire.codes import Priority, QueueOrder
from tests.core.builders import Stage, make_plan, make_task, ready_stage

MANY = 100_000


def calls(act: Callable[[], object]) -> int:
    """Function calls, of Python and of C, that `act` makes."""
    count = 0

    def note(_frame: FrameType, event: str, _arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    was_collecting = gc.isenabled()
    gc.disable()
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(before)
        if was_collecting:
            gc.enable()
    return count


def use(waitlist: Waitlist, name: str) -> None:
    """Push two, cancel one of them, look for victims, and dispatch the head."""
    one, two = make_task(f"{name}-1"), make_task(f"{name}-2", batch=True)
    waitlist.push(one)
    waitlist.push(two)
    waitlist.remove(one)
    waitlist.oldest()
    waitlist.newest_below(Priority.INTERACTIVE)
    head = waitlist.head(0)
    assert head is not None
    waitlist.take(head, 0)


TENANTS = 1_000


@pytest.mark.orch("ORCH-3036")
def test_turns_of_a_thousand_tenants_cost_little_more_than_those_of_ten() -> None:
    """Logarithms grow: by a factor of 2, where the number of tenants and of tasks grows by 100."""
    costs = dict[int, int]()
    for tenants in (10, TENANTS):
        waitlist = Waitlist(QueueOrder.FAIR)
        for count in range(100 * tenants):
            waitlist.push(make_task(f"t{count}", tenant=f"tenant{count % tenants}", batch=bool(count // tenants % 2)))
        costs[tenants] = max(calls(lambda: use_in_turn(waitlist, n)) for n in range(20))  # noqa: B023  (called at once)

    assert costs[TENANTS] <= 2 * costs[10]


def test_tenants_whose_first_task_comes_and_goes_leave_nothing_behind() -> None:
    lane = FairLane(lambda _: 1)
    lane.push(make_task("first", tenant="calm", expected_tokens=1))
    tracemalloc.start()
    for number in range(20_000):
        restless = make_task("restless", tenant=f"t{number % 3}", expected_tokens=5_000)
        lane.push(restless)
        lane.remove(restless)
        del restless
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert grown < 100_000


def use_in_turn(waitlist: Waitlist, number: int) -> None:
    """One new and one known tenant: push, look ahead, cancel, look for victims, find a place, hold, dispatch."""
    one, two = make_task(f"n{number}-1", tenant=f"new{number}"), make_task(f"n{number}-2", tenant="tenant7", batch=True)
    waitlist.ahead_in_class(one)
    waitlist.push(one)
    waitlist.push(two)
    waitlist.rank(one)
    waitlist.remove(one)
    waitlist.oldest()
    waitlist.newest_below(Priority.INTERACTIVE)
    for _ in range(3):
        head = waitlist.head(0)
        assert head is not None
        waitlist.hold(head)
        waitlist.take(head, 0)


@pytest.mark.orch("ORCH-3004")
def test_push_cancel_evict_and_pop_cost_the_same_with_a_hundred_thousand_waiting() -> None:
    waitlist, costs = Waitlist(), dict[int, int]()
    for count in range(MANY + 1):
        waitlist.push(make_task(f"t{count}", batch=bool(count % 2)))
        if count in (1_000, MANY):
            costs[count] = max(calls(lambda: use(waitlist, f"{count}-{n}")) for n in range(20))  # noqa: B023  (called at once)

    assert costs[MANY] <= costs[1_000]


@pytest.mark.orch("ORCH-3004")
@pytest.mark.parametrize("order", QueueOrder)
def test_a_task_goes_back_to_the_front_at_the_same_cost_with_a_hundred_thousand_waiting(order: QueueOrder) -> None:
    waitlist, costs = Waitlist(order), dict[int, int]()
    for count in range(MANY + 1):
        waitlist.push(make_task(f"t{count}", batch=bool(count % 2)))
        if count in (1_000, MANY):
            costs[count] = max(calls(lambda: bounce(waitlist)) for _ in range(20))

    assert costs[MANY] <= costs[1_000]


def bounce(waitlist: Waitlist) -> None:
    """Dispatch the head; it is turned away, and goes back."""
    head = waitlist.head(0)
    assert head is not None
    waitlist.take(head, 0)
    head.attempt += 1
    waitlist.push_front(head)


def test_rank_looks_at_blocks_and_not_at_tasks() -> None:
    waitlist = Waitlist()
    tasks = [make_task(f"t{count}") for count in range(MANY)]
    for task in tasks:
        waitlist.push(task)

    cost = calls(lambda: waitlist.rank(tasks[-1]))

    assert cost <= 2 * MANY / 512 + 20


def turn(stage: "LongQueue", name: str) -> None:
    """One task comes in, is cancelled, and another goes through from submit to its end."""
    stage.submit(make_task(f"{name}-c"))
    stage.give(ev.CancelRequested("ticket", f"{name}-c"))
    stage.submit(make_task(f"{name}-t"))
    (running,) = stage.core.state.runs.values()
    stage.finish(running)
    stage.settle_these(running, f"{name}-c")


class LongQueue(Stage):
    """A stage that does not look at all tasks to find the ending ones."""

    def settle_these(self, *names: str) -> None:
        self.give(ev.FinishesCommitted(names, tuple(10 for _ in names)))
        self.done.clear()


def test_a_whole_turn_of_the_conductor_costs_the_same_with_a_hundred_thousand_waiting() -> None:
    costs = dict[int, int]()
    for waiting in (1_000, 50_000):
        ready = ready_stage(make_plan(queue_capacity=MANY, queue_bytes_max=10**9))
        stage = LongQueue(ready.core)
        for count in range(waiting):
            stage.submit(make_task(f"t{count}"))
            stage.done.clear()
        costs[waiting] = sorted(calls(lambda: turn(stage, f"x{n}")) for n in range(9))[4]  # noqa: B023  (called at once)

    assert costs[50_000] <= costs[1_000] * 1.1 + 20


def test_a_replica_that_is_full_costs_a_submit_no_more_than_a_glance() -> None:
    costs = dict[int, int]()
    for replicas in (2, 64):
        ready = ready_stage(*(make_plan(f"p{n:02}") for n in range(replicas)))
        stage = LongQueue(ready.core)
        stage.submit(*(make_task(f"t{count}") for count in range(replicas)))
        costs[replicas] = calls(lambda: stage.submit(make_task("one-more")))  # noqa: B023  (called at once)

    assert costs[64] <= costs[2] + 62 * 12
