"""The fair lane against a naive round robin that keeps a plain ring and walks through every round."""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from supervisor.core.fair import FairLane
from supervisor.core.tasks import Task
from tests.core.builders import make_task
from tests.stateful.naive_robin import NaiveRobin

WEIGHTS = {"a": 1, "b": 2, "c": 7}
TENANTS = ("a", "b", "c", "d", "e")
SIZES = (1, 10, 200, 256, 257, 900, 30_000)


class FairLaneMachine(RuleBasedStateMachine):
    """Every rule acts on both; every invariant compares them."""

    def __init__(self) -> None:
        super().__init__()
        self.lane = FairLane(lambda tenant: WEIGHTS.get(tenant, 1))
        self.robin = NaiveRobin(WEIGHTS)
        self.arrived: list[Task] = []
        self.names = 0

    def fresh(self, tenant: str, tokens: int, attempt: int = 0) -> Task:
        self.names += 1
        return make_task(
            f"t{self.names}", tenant=tenant, expected_tokens=tokens, size_bytes=tokens + 3, attempt=attempt
        )

    @rule(tenant=st.sampled_from(TENANTS), tokens=st.lists(st.sampled_from(SIZES), min_size=1, max_size=8))
    def push(self, tenant: str, tokens: list[int]) -> None:
        for each in tokens:
            task = self.fresh(tenant, each)
            self.lane.push(task)
            self.robin.push(task)
            self.arrived.append(task)

    @rule(tenant=st.sampled_from(TENANTS), tokens=st.sampled_from(SIZES))
    def push_front(self, tenant: str, tokens: int) -> None:
        task = self.fresh(tenant, tokens, attempt=1)
        self.lane.push_front(task)
        self.robin.push_front(task)
        self.arrived.insert(0, task)

    @precondition(lambda self: self.arrived)
    @rule(count=st.integers(1, 12))
    def dispatch(self, count: int) -> None:
        for _ in range(min(count, len(self.arrived))):
            head = self.lane.head()
            assert head is not None
            self.lane.take(head)
            assert head is self.robin.take()
            self.arrived.remove(head)

    @precondition(lambda self: self.arrived)
    @rule(count=st.integers(1, 30))
    def dispatch_and_come_back(self, count: int) -> None:
        """Closed loops: whoever goes sends the next one of that size at once."""
        for _ in range(count):
            head = self.lane.head()
            assert head is not None
            self.dispatch(1)
            self.push(head.tenant, [head.expected_tokens])

    @precondition(lambda self: self.arrived)
    @rule()
    def find_no_room(self) -> None:
        self.lane.hold()
        self.robin.walk()

    @precondition(lambda self: self.arrived)
    @rule(data=st.data(), count=st.integers(1, 5), is_head=st.booleans())
    def leave(self, data: st.DataObject, count: int, is_head: bool) -> None:
        for _ in range(min(count, len(self.arrived))):
            head = self.lane.head()
            assert head is not None
            task = head if is_head else self.arrived[data.draw(st.integers(0, len(self.arrived) - 1))]
            self.lane.remove(task)
            self.robin.remove(task)
            self.arrived.remove(task)

    @invariant()
    def the_head_is_the_same(self) -> None:
        assert self.lane.head() is self.robin.look()
        assert self.lane.head() is self.lane.head()

    @invariant()
    def the_same_tasks_wait(self) -> None:
        assert list(self.lane) == self.arrived
        assert len(self.lane) == len(self.robin.tasks)
        assert self.lane.size_bytes == sum(task.size_bytes for task in self.arrived)
        assert self.lane.expected_tokens == sum(task.expected_tokens for task in self.arrived)

    @invariant()
    def the_victims_are_right(self) -> None:
        new = [task for task in self.arrived if not task.attempt]
        assert self.lane.oldest_new() is next(iter(new), None)
        assert self.lane.newest_new() is next(reversed(new), None)

    @invariant()
    def nobody_is_told_a_place_that_there_is_not(self) -> None:
        ranks = [self.lane.rank(task) for task in self.arrived]
        assert all(0 <= rank < len(self.arrived) for rank in ranks)
        assert not self.arrived or ranks[self.arrived.index(self.robin.look())] == 0  # type: ignore[arg-type]


TestFairLane = FairLaneMachine.TestCase
TestFairLane.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
