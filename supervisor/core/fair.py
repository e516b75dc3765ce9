"""Each tenant in turn inside a class: deficit round robin, counted in expected tokens (`queue.order: fair`).

In every round each tenant that waits is granted `QUANTUM_TOKENS` times its weight, in the order in which it began to
wait, and goes as long as its credit pays for its first task; what is left stays for the next round while it waits. So
over any time in which two tenants wait, they get tokens by their weights, whatever the size and number of their tasks:
within one grant and one task each.

No round is ever walked through. The credit of a tenant in round r is `base + quantum * r`, so the round in which it can
pay for its first task is known when that task becomes its first; a heap gives the tenant with the earliest. Costs
O(log n) for any number of tasks and tenants. Decides nothing between classes.

1. A task that lost its worker goes before all others, and is not paid for again.
2. A tenant that begins to wait comes after all others of the present round, with no credit from before. If it went in
   this round already, it comes in the next: or a few that always come back would keep the round from ending.
3. Where a tenant's first task leaves without having gone, its credit is cut to what the next one costs.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush

from msgspec import Struct

from supervisor.core.lane import Ahead, FifoLane
from supervisor.core.round_sums import RoundSums, Sums
from supervisor.core.tasks import Task

QUANTUM_TOKENS = 256
"""Less than most tasks, so that turns are no longer than a task; a larger one only makes them coarser."""
_REBUILD_PER_SHARE = 4
_REBUILD_MIN = 64


class _Share(Struct):
    """One tenant that waits. `seq` is its place in every round, `due` the round in which its first task goes."""

    tenant: str
    quantum: int
    seq: int
    base: int
    lane: FifoLane
    due: int = 0

    def round_of(self, tokens: int) -> int:
        """The round in which so many tokens from its first on are paid for."""
        return round_of(tokens, self.base, self.quantum)

    @property
    def drained(self) -> int:
        """The round in which the last of its tasks goes."""
        return self.round_of(self.lane.expected_tokens)

    def sums(self) -> Sums:
        """What it adds to the rounds in which it waits."""
        return Sums(len(self.lane), self.lane.expected_tokens, self.base, self.quantum)


def cost_of(task: Task) -> int:
    """What a tenant pays for a task, in tokens. None is free, or its tenant would never give up its turn."""
    return max(task.expected_tokens, 1)


def round_of(tokens: int, base: int, quantum: int) -> int:
    """The first round r, from 0, with base + quantum * r >= tokens."""
    return max(-((base - tokens) // quantum), 0)


class FairLane:
    """One class of a waitlist. `_round` and `_turn` say where the robin stands: in which round, at whose place.

    `_went` are the tenants that have paid for a task in this round.
    """

    __slots__ = (
        "_heap",
        "_next_seq",
        "_returned",
        "_round",
        "_shares",
        "_sums",
        "_tasks",
        "_turn",
        "_weight_of",
        "_went",
        "expected_tokens",
        "size_bytes",
    )

    def __init__(self, weight_of: Callable[[str], int]) -> None:
        self._weight_of = weight_of
        self._tasks: OrderedDict[str, Task] = OrderedDict()
        self._returned: OrderedDict[str, Task] = OrderedDict()
        self._shares: dict[str, _Share] = {}
        self._heap: list[tuple[int, int, str]] = []
        self._sums = RoundSums()
        self._round, self._turn, self._next_seq = 0, 0, 0
        self._went: set[str] = set()
        self.size_bytes = 0
        self.expected_tokens = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks.values())

    # In and out

    def push(self, task: Task) -> None:
        """Let a task wait behind those of its tenant."""
        self._note(task, 1)
        share = self._shares.get(task.tenant)
        if share is not None:
            self._sums.add(share.drained, share.sums(), -1)
            share.lane.push(task)
        else:
            share = self._shares[task.tenant] = self._new_share(task.tenant)
            share.lane.push(task)
            self._place(share, self._round)
        self._sums.add(share.drained, share.sums(), 1)

    def push_front(self, task: Task) -> None:
        """Put a task before all others: one that was dispatched already and lost its worker."""
        self._note(task, 1)
        self._tasks.move_to_end(task.job_id, last=False)
        self._returned[task.job_id] = task
        self._returned.move_to_end(task.job_id, last=False)

    def head(self) -> Task | None:
        """The task that goes next, left in place."""
        if self._returned:
            return next(iter(self._returned.values()))
        share = self._next()
        return None if share is None else share.lane.head()

    def hold(self) -> None:
        """There is no room for the head: whoever begins to wait now comes after it."""
        share = self._next()
        if share is not None and not self._returned:
            self._stand_at(share.due, share.seq)

    def take(self, task: Task) -> None:
        """Remove the head for dispatch; its tenant pays for it."""
        self._note(task, -1)
        if self._returned.pop(task.job_id, None) is not None:
            return
        share = self._shares[task.tenant]
        self._stand_at(share.due, share.seq)
        self._went.add(share.tenant)
        drained = share.drained
        self._sums.add(drained, share.sums(), -1)
        share.base -= cost_of(task)
        share.lane.take(task)
        self._settle(share, self._round)

    def remove(self, task: Task) -> None:
        """Take out a waiting task, wherever it stands."""
        self._note(task, -1)
        if self._returned.pop(task.job_id, None) is not None:
            return
        share = self._shares[task.tenant]
        self._sums.add(share.drained, share.sums(), -1)
        was_first = share.lane.head() is task
        share.lane.remove(task)
        first = share.lane.head()
        if not was_first or first is None:
            self._settle(share, None)
            return
        visit = self._round if share.seq >= self._turn else self._round + 1
        share.base = min(share.base, cost_of(first) - share.quantum * (visit - 1))
        self._settle(share, visit)

    def _note(self, task: Task, sign: int) -> None:
        if sign > 0:
            self._tasks[task.job_id] = task
        else:
            del self._tasks[task.job_id]
        self.size_bytes += sign * task.size_bytes
        self.expected_tokens += sign * task.expected_tokens

    # Turns

    def _stand_at(self, number: int, seq: int) -> None:
        if number != self._round:
            self._went.clear()
        self._round, self._turn = number, seq

    def _new_share(self, tenant: str) -> _Share:
        if not self._shares:
            self._round, self._turn = 0, 0
            self._went.clear()
            self._heap.clear()
        self._next_seq += 1
        quantum = self._quantum_of(tenant)
        return _Share(tenant, quantum, self._next_seq, self._first_base(tenant, quantum), FifoLane())

    def _quantum_of(self, tenant: str) -> int:
        return QUANTUM_TOKENS * self._weight_of(tenant)

    def _first_base(self, tenant: str, quantum: int) -> int:
        """So that the credit of its first round, the present or the next one, is the first grant, and nothing more."""
        first = self._round + 1 if tenant in self._went else self._round
        return quantum * (1 - first)

    def _settle(self, share: _Share, visit: int | None) -> None:
        """A task of this tenant left; where others wait on, the new first one goes not before round `visit`."""
        if not len(share.lane):
            del self._shares[share.tenant]
            return
        if visit is not None:
            self._place(share, visit)
        self._sums.add(share.drained, share.sums(), 1)

    def _place(self, share: _Share, visit: int) -> None:
        first = share.lane.head()
        assert first is not None, f"{share.tenant} waits with nothing"
        share.due = max(share.round_of(cost_of(first)), visit)
        heappush(self._heap, (share.due, share.seq, share.tenant))
        if len(self._heap) > _REBUILD_PER_SHARE * len(self._shares) + _REBUILD_MIN:
            self._heap = [(each.due, each.seq, each.tenant) for each in self._shares.values()]
            heapify(self._heap)

    def _next(self) -> _Share | None:
        """The tenant that goes next; entries of the heap that were overtaken by a change are dropped on the way."""
        while self._heap:
            due, seq, tenant = self._heap[0]
            share = self._shares.get(tenant)
            if share is not None and (share.due, share.seq) == (due, seq):
                return share
            heappop(self._heap)
        return None

    # What is ahead

    def oldest_new(self) -> Task | None:
        """The first to come of those that were never dispatched."""
        return next((task for task in self._tasks.values() if not task.attempt), None)

    def newest_new(self) -> Task | None:
        """The last to come of those that were never dispatched."""
        return next((task for task in reversed(self._tasks.values()) if not task.attempt), None)

    def rank(self, task: Task) -> int:
        """How many go before this one if nobody else comes: its tenant's exactly, of the others an estimate."""
        if task.job_id in self._returned:
            return list(self._returned).index(task.job_id)
        if task is self.head():
            return 0
        share = self._shares[task.tenant]
        own = share.lane.rank(task)
        until = max(share.round_of(own * share.lane.expected_tokens // len(share.lane) + cost_of(task)), share.due)
        itself = (share.drained, share.sums())
        # In the last round, those whose place is behind its own come after it: on average half of them.
        others = sum(self._sums.ahead(each, without=itself).tasks for each in (until - 1, until)) // 2
        return len(self._returned) + own + others

    def ahead_of(self, newcomer: Task) -> Ahead:
        """What would go before a task that is pushed now, if nobody else comes; at most a turn of each too much."""
        share = self._shares.get(newcomer.tenant)
        if share is None:
            quantum = self._quantum_of(newcomer.tenant)
            until = round_of(cost_of(newcomer), self._first_base(newcomer.tenant, quantum), quantum)
        else:
            until = share.round_of(share.lane.expected_tokens + cost_of(newcomer))
        found = self._sums.ahead(max(until, self._round))
        returned = sum(task.expected_tokens for task in self._returned.values())
        return Ahead(found.tasks + len(self._returned), found.expected_tokens + returned)
