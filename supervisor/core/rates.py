"""How fast one client may submit (ORCH-3006): a token bucket for each key, priority class, meter and limit.

A submit that is let in costs a token; one that is refused, for this reason or another, costs none. A bucket refills
lazily, from the time that it is given. Whoever finds no token is promised the next one that nobody was promised: it is
set aside for that task from `ready_ms` on, and goes back to all after `GRACE_MS`. So no two callers are promised the
same token, a retry at its hint passes, and callers who never come back cost the client a delay, not its rate. From the
start on never more pass than the burst and what flowed in; in a window, besides, what was set aside before it: at most
one token and what flows in during the grace.

Knows nothing of queues. Buckets live in memory: after a restart all are full.
"""

from collections import OrderedDict
from math import ceil

from msgspec import Struct, field

from supervisor.core.plan import ClassBounds
from supervisor.core.refusals import Refused
from supervisor.core.replicas import ReplicaSet
from supervisor.core.tasks import Task
from supervisor.wire.codes import Code, Priority, Reason

BUCKETS_MAX = 10_000
"""Full buckets are forgotten, which changes no answer; of more than these the least recently used goes."""
PROMISES_PER_BUCKET_MAX = 1_024
"""Beyond these a refusal still says when the next free token comes, but sets none aside."""
GRACE_MS = 1_500
"""How late a retry may be: `Retry-After` is in whole seconds, so it can be a second more than was promised."""
_TOKEN_MIN = 1 - 1e-9
"""Sums of refills fall short of 1 by rounding; nobody is sent away for that."""

BucketKey = tuple[str, Priority, str, float | None, float]
TaskKey = tuple[str, str]


class Bucket(Struct):
    """`pot` are tokens for whoever comes, as of `tail_ms`; what flows in before that moment is promised already.

    `promised` says from when on each task finds its token, in the order of these times.
    """

    per_ms: float
    burst: float
    pot: float
    tail_ms: float
    promised: OrderedDict[TaskKey, float] = field(default_factory=OrderedDict)

    def settle(self, now_ms: float) -> None:
        """Take in what came until now: refills, and tokens that were not fetched. Amortised O(1)."""
        while self.promised and next(iter(self.promised.values())) + GRACE_MS < now_ms:
            self.promised.popitem(last=False)
            self.pot = min(self.pot + 1, self.burst)
        if self.tail_ms < now_ms:
            self.pot = min(self.pot + (now_ms - self.tail_ms) * self.per_ms, self.burst)
            self.tail_ms = now_ms

    def is_full(self) -> bool:
        """Whether forgetting it changes no answer."""
        return self.pot >= self.burst and not self.promised

    def wait_ms(self, task: TaskKey, now_ms: float) -> float:
        """How long until this task finds a token, 0 for now: its own, one from the pot, or the next to be promised."""
        own_ms = self.promised.get(task)
        if self.pot >= _TOKEN_MIN or (own_ms is not None and own_ms <= now_ms):
            return 0.0
        ready_ms = self._next_ms() if own_ms is None else own_ms
        return ready_ms - now_ms

    def _next_ms(self) -> float:
        return self.tail_ms + (1 - self.pot) / self.per_ms

    def take(self, task: TaskKey, now_ms: float) -> None:
        """Spend the token that `wait_ms` found: the task's own where that is there, else one from the pot."""
        own_ms = self.promised.get(task)
        if own_ms is not None and own_ms <= now_ms:
            del self.promised[task]
        else:
            self.pot = max(self.pot - 1, 0.0)

    def promise(self, task: TaskKey) -> None:
        """Set the next token aside for a task that was told to wait for it."""
        if task not in self.promised and len(self.promised) < PROMISES_PER_BUCKET_MAX:
            self.promised[task] = self.tail_ms = self._next_ms()
            self.pot = 0.0


class Rates:
    """All buckets, the least recently used first."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: OrderedDict[BucketKey, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def refuse(self, task: Task, home: ReplicaSet, now_ms: float) -> Refused | None:
        """Whether this submit comes too early for its client; if so, the token that the hint speaks of is set aside."""
        bounds = _bounds(task, home)
        if bounds.rate_limit_rps is None:
            return None
        bucket = self._buckets.get(_key(task, home))
        if bucket is None:
            return None
        bucket.settle(now_ms)
        key = (task.tenant, task.task_id)
        wait_ms = bucket.wait_ms(key, now_ms)
        if not wait_ms:
            return None
        bucket.promise(key)
        return Refused(
            code=Code.ADMISSION_REJECT,
            reason=Reason.RATE_LIMIT,
            message=f"More than {bounds.rate_limit_rps:g} {task.priority} tasks per second came with this key.",
            retry_after_ms=max(ceil(wait_ms), 1),
            engine=task.engine,
            pool_id=home.members[0].plan.public_id,
        )

    def charge(self, task: Task, home: ReplicaSet, now_ms: float) -> None:
        """This submit is let in, or makes the engine work: it costs a token."""
        if _bounds(task, home).rate_limit_rps is not None:
            self._open(task, home, now_ms).take((task.tenant, task.task_id), now_ms)

    def _open(self, task: Task, home: ReplicaSet, now_ms: float) -> Bucket:
        key = _key(task, home)
        bucket = self._buckets.get(key)
        if bucket is None:
            bounds = _bounds(task, home)
            assert bounds.rate_limit_rps is not None, f"{home.set_id} limits no {task.priority} tasks"
            self._forget_full(now_ms)
            bucket = self._buckets[key] = Bucket(bounds.rate_limit_rps / 1_000, bounds.burst, bounds.burst, now_ms)
        self._buckets.move_to_end(key)
        bucket.settle(now_ms)
        return bucket

    def _forget_full(self, now_ms: float) -> None:
        """Make room for a bucket: two that come, at most one that goes, so full ones never pile up."""
        for _ in range(min(2, len(self._buckets))):
            key, oldest = self._buckets.popitem(last=False)
            oldest.settle(now_ms)
            if not oldest.is_full() and len(self._buckets) < BUCKETS_MAX - 1:
                self._buckets[key] = oldest


def _bounds(task: Task, home: ReplicaSet) -> ClassBounds:
    """Members of one set agree on their limits: the config sees to it."""
    return home.members[0].plan.classes[task.priority]


def _key(task: Task, home: ReplicaSet) -> BucketKey:
    """Revisions of a pool share a bucket, and so do versions of its engine: no switch gives another burst.

    A member speaks for its set that answers to the name which is asked for. Another limit is another bucket.
    """
    bounds = _bounds(task, home)
    named = (member for member in home.members if task.model_ref in member.plan.model_refs)
    return task.client_id, task.priority, next(named, home.members[0]).meter, bounds.rate_limit_rps, bounds.burst
