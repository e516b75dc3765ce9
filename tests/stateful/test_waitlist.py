"""The waitlist against a naive one that keeps plain lists and looks at everything."""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from supervisor.core.tasks import Task
from supervisor.core.waitlist import BATCH_AGE_MS_MAX, BATCH_EVERY, Waitlist
from supervisor.wire.codes import Priority
from tests.core.builders import make_task

INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH


class WaitlistMachine(RuleBasedStateMachine):
    """Every rule acts on both; every invariant compares them."""

    def __init__(self) -> None:
        super().__init__()
        self.waitlist = Waitlist()
        self.lanes: dict[Priority, list[Task]] = {INTERACTIVE: [], BATCH: []}
        self.passed_batch = 0
        self.turn: Priority | None = None
        self.batch_went_at: float | None = None
        self.gone: list[Task] = []
        self.last_turn: tuple[Task, int, float | None] | None = None
        self.given_back: Task | None = None
        self.now = 0.0
        self.names = 0

    @property
    def waiting(self) -> list[Task]:
        return self.lanes[INTERACTIVE] + self.lanes[BATCH]

    def expected_head(self) -> Task | None:
        interactive, batch = self.lanes[INTERACTIVE], self.lanes[BATCH]
        if not interactive or not batch:
            return next(iter(interactive + batch), None)
        if self.turn is not None:
            return self.lanes[self.turn][0]
        since = [at for at in (batch[0].admitted_ms, self.batch_went_at) if at is not None]
        is_due = self.passed_batch >= BATCH_EVERY - 1 or all(self.now - at > BATCH_AGE_MS_MAX for at in since)
        return batch[0] if is_due else interactive[0]

    def fresh(self, is_batch: bool, size: int, attempt: int = 0) -> Task:
        self.names += 1
        return make_task(
            f"t{self.names}",
            batch=is_batch,
            size_bytes=size,
            expected_tokens=size * 2,
            admitted_ms=self.now,
            attempt=attempt,
        )

    @rule(is_batch=st.booleans(), size=st.integers(1, 1_000), count=st.integers(1, 40))
    def push(self, is_batch: bool, size: int, count: int) -> None:
        for _ in range(count):
            task = self.fresh(is_batch, size)
            self.waitlist.push(task)
            self.lanes[task.priority].append(task)

    @rule(is_batch=st.booleans(), size=st.integers(1, 1_000))
    def push_front(self, is_batch: bool, size: int) -> None:
        task = self.fresh(is_batch, size, attempt=1)
        self.waitlist.push_front(task)
        self.lanes[task.priority].insert(0, task)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def turn_away(self, data: st.DataObject) -> None:
        task = self.gone.pop(data.draw(st.integers(max(len(self.gone) - 12, 0), len(self.gone) - 1)))
        task.attempt += 1
        self.waitlist.push_front(task)
        self.lanes[task.priority].insert(0, task)
        if self.last_turn is not None and self.last_turn[0] is task:
            _, passed, self.batch_went_at = self.last_turn
            self.passed_batch += passed
            self.last_turn, self.given_back = None, task

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), count=st.integers(1, 30))
    def leave(self, data: st.DataObject, count: int) -> None:
        for _ in range(min(count, len(self.waiting))):
            task = self.waiting[data.draw(st.integers(0, len(self.waiting) - 1))]
            if self.turn is task.priority and task is self.lanes[task.priority][0]:
                self.turn = None
            self.waitlist.remove(task)
            self.lanes[task.priority].remove(task)

    @precondition(lambda self: self.waiting)
    @rule(count=st.integers(1, 20))
    def dispatch(self, count: int) -> None:
        for _ in range(min(count, len(self.waiting))):
            head = self.waitlist.head(self.now)
            assert head is self.expected_head()
            assert head is not None
            if head.priority is BATCH:
                is_again, self.given_back = head is self.given_back, None
                self.last_turn = None if is_again else (head, self.passed_batch, self.batch_went_at)
            self.passed_batch = self.passed_batch + 1 if head.priority is INTERACTIVE and self.lanes[BATCH] else 0
            self.turn = None
            self.batch_went_at = self.now if head.priority is BATCH else self.batch_went_at
            self.waitlist.take(head, self.now)
            self.lanes[head.priority].remove(head)
            self.gone.append(head)

    @precondition(lambda self: self.waiting)
    @rule()
    def find_no_room(self) -> None:
        head = self.waitlist.head(self.now)
        assert head is not None
        self.waitlist.hold(head)
        self.turn = head.priority if all(self.lanes.values()) else None

    @rule(ms=st.floats(0, 40_000))
    def wait(self, ms: float) -> None:
        self.now += ms

    @invariant()
    def the_head_is_the_same(self) -> None:
        assert self.waitlist.head(self.now) is self.expected_head()

    @invariant()
    def the_same_tasks_wait_in_the_same_order(self) -> None:
        assert [task.job_id for task in self.waitlist] == [task.job_id for task in self.waiting]
        assert len(self.waitlist) == len(self.waiting)
        assert all(self.waitlist.depth(priority) == len(lane) for priority, lane in self.lanes.items())

    @invariant()
    def the_sums_are_right(self) -> None:
        assert self.waitlist.size_bytes == sum(task.size_bytes for task in self.waiting)
        for priority, lane in self.lanes.items():
            assert self.waitlist.expected_tokens(priority) == sum(task.expected_tokens for task in lane)

    @invariant()
    def everybody_knows_his_place(self) -> None:
        assert [self.waitlist.rank(task) for task in self.waiting] == list(range(len(self.waiting)))

    @invariant()
    def the_victims_are_right(self) -> None:
        new = {priority: [task for task in lane if not task.attempt] for priority, lane in self.lanes.items()}
        firsts = [lane[0] for lane in new.values() if lane]
        assert self.waitlist.oldest() is min(firsts, key=lambda task: task.admitted_ms, default=None)
        assert all(self.waitlist.oldest(priority) is next(iter(lane), None) for priority, lane in new.items())
        assert self.waitlist.newest_below(INTERACTIVE) is next(reversed(new[BATCH]), None)
        assert self.waitlist.newest_below(BATCH) is None


TestWaitlist = WaitlistMachine.TestCase
TestWaitlist.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
