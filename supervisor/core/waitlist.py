"""The tasks of one replica set that wait for a slot: interactive first, with a floor for batch; in a class as ordered.

Decides only the order; bounds and victims are admission's. Inside a class a lane says who goes first: the oldest, or
each tenant in turn. Between the classes (ORCH-3004, ORCH-3051): interactive goes first, but batch gets one of every
`BATCH_EVERY` dispatches while it waits, and one at once when its head is older than `BATCH_AGE_MS_MAX` and so is its
last dispatch: a long backlog of batch is all old, and must not go before interactive tasks as a whole. A head that was
found to have no room keeps its turn: time alone never changes who goes next. The turn is that head's own: where it
leaves without having gone, the rules are asked again. A batch task that comes back to the front
brings back the turn of its class that it used, unless another one went since; not twice in a row, or a task that every
worker refuses would keep interactive tasks from going.
"""

from collections.abc import Callable, Iterator
from itertools import takewhile
from math import inf

from msgspec import Struct

from supervisor.core.fair import FairLane
from supervisor.core.lane import Ahead, FifoLane, Lane
from supervisor.core.tasks import Task
from supervisor.wire.codes import Priority, QueueOrder

BATCH_EVERY = 9
BATCH_AGE_MS_MAX = 30_000


class _Turn(Struct, frozen=True):
    """The last dispatch of batch, and what stood to the credit of its class before."""

    job_id: str
    since_batch: int
    batch_ms: float


def _weigh_alike(_: str) -> int:
    return 1


def _was_dispatched(task: Task) -> bool:
    return task.attempt > 0


class Waitlist:
    """The waiting tasks of one replica set. `weight_of` gives a tenant's share where tenants take turns."""

    __slots__ = (
        "_batch",
        "_batch_ms",
        "_given_back",
        "_held",
        "_interactive",
        "_last_turn",
        "_order",
        "_since_batch",
        "_weight_of",
    )

    def __init__(self, order: QueueOrder = QueueOrder.FIFO, weight_of: Callable[[str], int] = _weigh_alike) -> None:
        self._order, self._weight_of = order, weight_of
        self._interactive = self._new_lane()
        self._batch = self._new_lane()
        self._since_batch = 0
        self._batch_ms = -inf
        self._last_turn: _Turn | None = None
        self._given_back: str | None = None
        self._held: Priority | None = None

    def _new_lane(self) -> Lane:
        return FairLane(self._weight_of) if self._order is QueueOrder.FAIR else FifoLane()

    def emptied(self) -> "Waitlist":
        """An empty one with the same order."""
        return Waitlist(self._order, self._weight_of)

    def __len__(self) -> int:
        return len(self._interactive) + len(self._batch)

    def __iter__(self) -> Iterator[Task]:
        yield from self._interactive
        yield from self._batch

    def _lane(self, priority: Priority) -> Lane:
        return self._interactive if priority is Priority.INTERACTIVE else self._batch

    @property
    def size_bytes(self) -> int:
        """Bytes of all waiting bodies."""
        return self._interactive.size_bytes + self._batch.size_bytes

    def depth(self, priority: Priority) -> int:
        """Waiting tasks of one class."""
        return len(self._lane(priority))

    def expected_tokens(self, priority: Priority) -> int:
        """Tokens expected of all waiting tasks of one class."""
        return self._lane(priority).expected_tokens

    def ahead_in_class(self, newcomer: Task) -> Ahead:
        """What of its own class goes before a task that would be pushed now."""
        return self._lane(newcomer.priority).ahead_of(newcomer)

    def push(self, task: Task) -> None:
        """Add a task at the end of its class, or of its tenant's tasks in it."""
        self._lane(task.priority).push(task)

    def push_front(self, task: Task) -> None:
        """Give a task that lost its worker its place back, the head of its class, and batch the turn it did not use."""
        self._lane(task.priority).push_front(task)
        turn = self._last_turn
        if turn is not None and turn.job_id == task.job_id:
            self._since_batch += turn.since_batch
            self._batch_ms = turn.batch_ms
            self._last_turn, self._given_back = None, task.job_id

    def returned(self) -> list[Task]:
        """Those at the front of their class that were dispatched before, in order."""
        return [task for lane in (self._interactive, self._batch) for task in takewhile(_was_dispatched, lane)]

    def remove(self, task: Task) -> None:
        """Take out a waiting task, wherever it stands."""
        lane = self._lane(task.priority)
        if self._held is task.priority and lane.head() is task:
            self._held = None
        lane.remove(task)

    def head(self, now_ms: float) -> Task | None:
        """The task that goes next, left in place."""
        interactive, batch = self._interactive.head(), self._batch.head()
        if interactive is None or batch is None:
            return interactive or batch
        if self._held is not None:
            return batch if self._held is Priority.BATCH else interactive
        passed_over_ms = now_ms - max(batch.admitted_ms, self._batch_ms)
        is_batch_due = self._since_batch >= BATCH_EVERY - 1 or passed_over_ms > BATCH_AGE_MS_MAX
        return batch if is_batch_due else interactive

    def hold(self, task: Task) -> None:
        """There is no room for the head: where it was chosen over the other class, it keeps the turn.

        A class that waits alone keeps nothing: an interactive task that arrives goes before it. Inside its class the
        head stays the head.
        """
        self._lane(task.priority).hold()
        self._held = task.priority if len(self._interactive) and len(self._batch) else None

    def take(self, task: Task, now_ms: float) -> None:
        """Remove the head for dispatch, and count it for the floor of batch."""
        self._held = None
        if task.priority is Priority.BATCH:
            is_again = self._given_back == task.job_id
            self._last_turn = None if is_again else _Turn(task.job_id, self._since_batch, self._batch_ms)
            self._given_back = None
            self._batch_ms = now_ms
        if task.priority is Priority.BATCH or not len(self._batch):
            self._since_batch = 0
        else:
            self._since_batch += 1
        self._lane(task.priority).take(task)

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
