"""The tasks of one replica set that wait for a slot: FIFO inside a class, interactive first, with a floor for batch.

Decides only the order; bounds and victims are admission's. Push, pop, cancel, oldest and newest are O(1); `rank` is
O(n / 512). Between the classes (ORCH-3004, ORCH-3051): interactive goes first, but batch gets one of every
`BATCH_EVERY` dispatches while it waits, and goes at once when its head is older than `BATCH_AGE_MS_MAX`. A head that
was found to have no room keeps its turn: time alone never changes who goes next.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator

from supervisor.core.tasks import Task
from supervisor.wire.codes import Priority

BATCH_EVERY = 9
BATCH_AGE_MS_MAX = 30_000
_BLOCK = 512


class _Lane:
    """One class: tasks in order of arrival, with their weight and their rank."""

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
        block, bit = divmod(self._next, _BLOCK)
        if not self._tasks:
            self._blocks.clear()
            self._base = block
        while self._base + len(self._blocks) <= block:
            self._blocks.append(0)
        self._blocks[-1] |= 1 << bit
        task.arrival = self._next
        self._next += 1
        self._tasks[task.job_id] = task
        self.size_bytes += task.size_bytes
        self.expected_tokens += task.expected_tokens

    def push_front(self, task: Task) -> None:
        """Put a task before all others: one that was dispatched already and lost its worker."""
        rest = list(self._tasks.values())
        self._tasks.clear()
        self.size_bytes = self.expected_tokens = 0
        for each in (task, *rest):
            self.push(each)

    def head(self) -> Task | None:
        return next(iter(self._tasks.values()), None)

    def oldest_new(self) -> Task | None:
        """The first task that was never dispatched."""
        return next((task for task in self._tasks.values() if not task.attempt), None)

    def newest_new(self) -> Task | None:
        """The last task that was never dispatched."""
        return next((task for task in reversed(self._tasks.values()) if not task.attempt), None)

    def remove(self, task: Task) -> None:
        del self._tasks[task.job_id]
        block, bit = divmod(task.arrival, _BLOCK)
        self._blocks[block - self._base] &= ~(1 << bit)
        while self._blocks and not self._blocks[0]:
            self._blocks.popleft()
            self._base += 1
        self.size_bytes -= task.size_bytes
        self.expected_tokens -= task.expected_tokens

    def rank(self, task: Task) -> int:
        block, bit = divmod(task.arrival, _BLOCK)
        index = block - self._base
        before = sum(self._blocks[i].bit_count() for i in range(index))
        return before + (self._blocks[index] & ((1 << bit) - 1)).bit_count()


class Waitlist:
    """The waiting tasks of one replica set."""

    __slots__ = ("_batch", "_held", "_interactive", "_since_batch")

    def __init__(self) -> None:
        self._interactive = _Lane()
        self._batch = _Lane()
        self._since_batch = 0
        self._held: Priority | None = None

    def __len__(self) -> int:
        return len(self._interactive) + len(self._batch)

    def __iter__(self) -> Iterator[Task]:
        yield from self._interactive
        yield from self._batch

    def _lane(self, priority: Priority) -> _Lane:
        return self._interactive if priority is Priority.INTERACTIVE else self._batch

    @property
    def size_bytes(self) -> int:
        """Bytes of all waiting bodies."""
        return self._interactive.size_bytes + self._batch.size_bytes

    def depth(self, priority: Priority) -> int:
        """Waiting tasks of one class."""
        return len(self._lane(priority))

    def expected_tokens_ahead(self, priority: Priority) -> int:
        """Tokens expected of the tasks that a newcomer of this class finds before it."""
        ahead = self._interactive.expected_tokens
        return ahead if priority is Priority.INTERACTIVE else ahead + self._batch.expected_tokens

    def push(self, task: Task) -> None:
        """Add a task at the end of its class."""
        self._lane(task.priority).push(task)

    def push_front(self, task: Task) -> None:
        """Give a task that lost its worker its place back: the head of its class. O(n), and rare."""
        self._lane(task.priority).push_front(task)

    def remove(self, task: Task) -> None:
        """Take out a waiting task, wherever it stands."""
        self._lane(task.priority).remove(task)

    def head(self, now_ms: float) -> Task | None:
        """The task that goes next, left in place."""
        interactive, batch = self._interactive.head(), self._batch.head()
        if interactive is None or batch is None:
            return interactive or batch
        if self._held is not None:
            return batch if self._held is Priority.BATCH else interactive
        is_batch_due = self._since_batch >= BATCH_EVERY - 1 or now_ms - batch.admitted_ms > BATCH_AGE_MS_MAX
        return batch if is_batch_due else interactive

    def hold(self, task: Task) -> None:
        """There is no room for the head: where it was chosen over the other class, it keeps the turn.

        A class that waits alone keeps nothing: an interactive task that arrives goes before it.
        """
        self._held = task.priority if len(self._interactive) and len(self._batch) else None

    def take(self, task: Task) -> None:
        """Remove the head for dispatch, and count it for the floor of batch."""
        self._held = None
        if task.priority is Priority.BATCH or not len(self._batch):
            self._since_batch = 0
        else:
            self._since_batch += 1
        self.remove(task)

    def oldest(self, priority: Priority | None = None) -> Task | None:
        """The task that waits longest, of one class or of any: the victim of drop-lru. Never one that ran already."""
        lanes = (self._interactive, self._batch) if priority is None else (self._lane(priority),)
        firsts = [first for first in (lane.oldest_new() for lane in lanes) if first]
        return min(firsts, key=lambda task: task.admitted_ms, default=None)

    def newest_below(self, priority: Priority) -> Task | None:
        """The newest waiting task of a strictly lower class: the victim of shed-low-priority. Never one that ran."""
        return self._batch.newest_new() if priority is Priority.INTERACTIVE else None

    def rank(self, task: Task) -> int:
        """How many waiting tasks go before this waiting task, the floor of batch left aside."""
        own = self._lane(task.priority).rank(task)
        return own if task.priority is Priority.INTERACTIVE else own + len(self._interactive)
