"""Waiting tasks in order of arrival, with their weight and their rank: one class of a waitlist, or one tenant's part.

Push (at either end), pop, cancel, oldest and newest are O(1); `rank` is O(n / 512). Decides no order between classes or
tenants.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Protocol

from msgspec import Struct

from supervisor.core.tasks import Task

_BLOCK = 512


class Ahead(Struct, frozen=True):
    """What waits before a newcomer."""

    tasks: int
    expected_tokens: int


class Lane(Protocol):
    """The waiting tasks of one class, in the order of a pool: by arrival, or each tenant in turn.

    The head stays the head until it is taken or leaves, or another is pushed before it.
    """

    size_bytes: int
    expected_tokens: int

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Task]:
        """In order of arrival, those that were pushed to the front first."""

    def push(self, task: Task) -> None:
        """Add a task at the end."""

    def push_front(self, task: Task) -> None:
        """Put a task before all others: one that was dispatched already and lost its worker."""

    def head(self) -> Task | None:
        """The task that goes next, left in place."""

    def hold(self) -> None:
        """There is no room for the head: whoever comes now, it keeps its turn."""

    def take(self, task: Task) -> None:
        """Remove the head for dispatch."""

    def remove(self, task: Task) -> None:
        """Take out a waiting task, wherever it stands."""

    def oldest_new(self) -> Task | None:
        """The first to come of those that were never dispatched."""

    def newest_new(self) -> Task | None:
        """The last to come of those that were never dispatched."""

    def rank(self, task: Task) -> int:
        """How many of these go before this one, as things are."""

    def ahead_of(self, newcomer: Task) -> Ahead:
        """What of these would go before a task that is pushed now, as things are."""


class FifoLane:
    """First in, first out."""

    __slots__ = ("_base", "_blocks", "_next", "_tasks", "expected_tokens", "size_bytes")

    def __init__(self) -> None:
        self._tasks: OrderedDict[str, Task] = OrderedDict()
        self._blocks: deque[int] = deque()  # one bit mask of the living per _BLOCK arrivals; the first is block _base
        self._base = 0
        self._next = 0
        self.size_bytes = 0
        self.expected_tokens = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks.values())

    def push(self, task: Task) -> None:
        """Add a task at the end."""
        block, bit = divmod(self._next, _BLOCK)
        if not self._tasks:
            self._blocks.clear()
            self._base = block
        while self._base + len(self._blocks) <= block:
            self._blocks.append(0)
        self._blocks[-1] |= 1 << bit
        self._note(task, self._next)
        self._next += 1

    def push_front(self, task: Task) -> None:
        """Put a task before all others: one that was dispatched already and lost its worker."""
        first = self.head()
        if first is None:
            self.push(task)
            return
        arrival = first.arrival - 1  # free: nobody is before the head; below 0 it goes on downwards
        block, bit = divmod(arrival, _BLOCK)
        if block < self._base:
            self._blocks.appendleft(0)
            self._base = block
        self._blocks[0] |= 1 << bit
        self._note(task, arrival)
        self._tasks.move_to_end(task.job_id, last=False)

    def _note(self, task: Task, arrival: int) -> None:
        task.arrival = arrival
        self._tasks[task.job_id] = task
        self.size_bytes += task.size_bytes
        self.expected_tokens += task.expected_tokens

    def head(self) -> Task | None:
        """The task that came first."""
        return next(iter(self._tasks.values()), None)

    def hold(self) -> None:
        """Nobody who comes later goes before the head anyway."""

    def take(self, task: Task) -> None:
        """Remove the head for dispatch."""
        self.remove(task)

    def oldest_new(self) -> Task | None:
        """The first task that was never dispatched."""
        return next((task for task in self._tasks.values() if not task.attempt), None)

    def newest_new(self) -> Task | None:
        """The last task that was never dispatched."""
        return next((task for task in reversed(self._tasks.values()) if not task.attempt), None)

    def remove(self, task: Task) -> None:
        """Take out a waiting task, wherever it stands."""
        del self._tasks[task.job_id]
        block, bit = divmod(task.arrival, _BLOCK)
        self._blocks[block - self._base] &= ~(1 << bit)
        while self._blocks and not self._blocks[0]:
            self._blocks.popleft()
            self._base += 1
        self.size_bytes -= task.size_bytes
        self.expected_tokens -= task.expected_tokens

    def rank(self, task: Task) -> int:
        """How many came before this one."""
        block, bit = divmod(task.arrival, _BLOCK)
        index = block - self._base
        before = sum(self._blocks[i].bit_count() for i in range(index))
        return before + (self._blocks[index] & ((1 << bit) - 1)).bit_count()

    def ahead_of(self, newcomer: Task) -> Ahead:  # noqa: ARG002  (everybody is before a newcomer)
        """All that wait."""
        return Ahead(len(self._tasks), self.expected_tokens)
