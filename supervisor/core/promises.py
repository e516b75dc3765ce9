"""Promised places in a full queue: a refused task is told when to come back, and its place is kept for it then.

A refusal takes the next place in line: `due_ms` is when, by the forecast, that many places will have come free. Places
are kept for promises that are due soon (`LEAD_MS`) or were due not long ago (`GRACE_MS`, longer than the second by
which `Retry-After` is rounded up), so a newcomer without a promise is refused, with a later hint. A retry is known by
its tenant and task id. One that comes too early keeps its place and is told what is left; one that comes too late has
lost it and is a newcomer. Places are kept, and spaced, by the share of the promised that come back at all. Everybody
who is refused is told a finite time, in the order of the refusals: nobody starves. Each tenant has a line of its own,
in which places are as far apart as there are tenants in line: whoever is refused a thousand times makes a long line for
itself, not for others.

Decides nothing about the queue itself: a promise lets no task past a bound. The table holds `PROMISES_MAX` entries,
at most `PROMISES_PER_TENANT_MAX` of one tenant; beyond it a hint is the time of a place that is not kept. It lives in
memory: after a restart all are newcomers.
"""

from heapq import heappop, heappush

from msgspec import Struct

from supervisor.wire.codes import Priority

PROMISES_MAX = 16_384
PROMISES_PER_TENANT_MAX = PROMISES_MAX // 4
LEAD_MS = 1_000
GRACE_MS = 2_000
AHEAD_MS_MAX = 600_000
"""Nobody is promised a place further ahead."""
SPACING = 1.2
"""Promises are a little further apart than places are expected: the forecast is wrong in both directions."""

SHOWN_WEIGHT = 0.1
"""Of the newest promise in the share of those that are fetched."""
SHOWN_STRICT = 0.8
"""While more than this share comes back, each promise stands behind all others of its class."""
SHOWN_MIN = 0.1
"""However few came back lately, no more than this many times too many places are promised."""

Key = tuple[str, str]


class Promise(Struct):
    """A place for one task from `due_ms` on. `is_near`: it is kept now."""

    priority: Priority
    size_bytes: int
    due_ms: float
    is_near: bool = False


class Kept(Struct):
    """Whose places are due now or soon: tasks by class, and their bytes."""

    interactive: int = 0
    batch: int = 0
    size_bytes: int = 0

    @property
    def total(self) -> int:
        """Tasks of both classes."""
        return self.interactive + self.batch

    def of(self, priority: Priority) -> int:
        """Tasks of one class."""
        return self.interactive if priority is Priority.INTERACTIVE else self.batch

    def add(self, promise: Promise, sign: int) -> None:
        """Keep the place of a promise (1), or no longer (-1)."""
        if promise.priority is Priority.INTERACTIVE:
            self.interactive += sign
        else:
            self.batch += sign
        self.size_bytes += sign * promise.size_bytes


class _Line(Struct):
    """The promises of one tenant in one class: how many, when the last is due, and the last that was not kept."""

    count: int = 0
    tail_ms: float = 0.0
    again_ms: float = 0.0


class Promises:
    """The lines of one replica set; amortised O(log n). `shown` is the share of late promises whose tasks came back."""

    __slots__ = ("_lapses", "_lines", "_soon", "_table", "kept", "shown")

    def __init__(self) -> None:
        self._table: dict[Key, Promise] = {}
        self._soon: list[tuple[float, Key]] = []
        self._lapses: list[tuple[float, Key]] = []
        self._lines: dict[Priority, dict[str, _Line]] = {priority: {} for priority in Priority}
        self.kept = Kept()
        self.shown = 1.0

    def has_any(self, priority: Priority) -> bool:
        """Whether somebody of this class has a promise."""
        return bool(self._lines[priority])

    def __len__(self) -> int:
        return len(self._table)

    def settle(self, now_ms: float) -> None:
        """Begin to keep what is due soon; let go of what was not fetched."""
        while self._soon and self._soon[0][0] <= now_ms + LEAD_MS:
            due_ms, key = heappop(self._soon)
            promise = self._table.get(key)
            if promise is not None and promise.due_ms == due_ms and not promise.is_near:
                self._keep(key, promise)
        while self._lapses and self._lapses[0][0] <= now_ms:
            lapse_ms, key = heappop(self._lapses)
            promise = self._table.get(key)
            if promise is not None and promise.due_ms + GRACE_MS == lapse_ms:
                self._note_shown(0.0)
                self._forget(key)

    def _note_shown(self, sample: float) -> None:
        self.shown += SHOWN_WEIGHT * (sample - self.shown)

    def _keep(self, key: Key, promise: Promise) -> None:
        promise.is_near = True
        self.kept.add(promise, 1)
        heappush(self._lapses, (promise.due_ms + GRACE_MS, key))

    def find(self, key: Key) -> Promise | None:
        """The promise that a task has."""
        return self._table.get(key)

    def fetch(self, key: Key) -> None:
        """A task with a promise was let in."""
        promise = self._table.get(key)
        if promise is not None:
            self._note_shown(1.0)
            self._forget(key)

    def _forget(self, key: Key) -> None:
        promise = self._table.pop(key)
        lines = self._lines[promise.priority]
        line = lines[key[0]]
        line.count -= 1
        if not line.count:
            del lines[key[0]]
        if promise.is_near:
            self.kept.add(promise, -1)

    def give(
        self, key: Key, priority: Priority, size_bytes: int, now_ms: float, first_ms: float, place_ms: float
    ) -> float:
        """Promise the next place in the tenant's line, not before `first_ms`; gives when it is due.

        `place_ms` lies between two places that come free for this class. A full table, or a line that reaches further
        than `AHEAD_MS_MAX`, gives the time without a place.
        """
        lines = self._lines[priority]
        line = lines.get(key[0]) or _Line()
        tenants = len(lines) + (key[0] not in lines)
        step_ms = place_ms * SPACING * max(self.shown, SHOWN_MIN) * tenants
        tail_ms = max(line.tail_ms, now_ms)
        if self.shown < SHOWN_STRICT:  # places ahead that nobody will fetch are no reason to wait
            tail_ms = min(tail_ms, now_ms + step_ms * line.count)
        due_ms = max(tail_ms + step_ms, first_ms)
        if due_ms > now_ms + AHEAD_MS_MAX:
            return due_ms
        line.tail_ms = due_ms
        if len(self._table) < PROMISES_MAX and line.count < PROMISES_PER_TENANT_MAX:
            lines[key[0]] = line
            line.count += 1
            self._table[key] = Promise(priority, size_bytes, due_ms)
            heappush(self._soon, (due_ms, key))
        return due_ms

    def give_again(self, key: Key, now_ms: float, first_ms: float, place_ms: float) -> float:
        """A promise was not kept, for the place was not there: it is due again, before all that are not due yet.

        Those of its tenant that failed before it go first, and its line behind moves by one place. A place that is not
        due soon is not kept yet: it stands in line like any other.
        """
        promise = self._table[key]
        self._note_shown(1.0)
        line = self._lines[promise.priority][key[0]]
        promise.due_ms = line.again_ms = max(line.again_ms + place_ms, first_ms)
        line.tail_ms += place_ms
        if promise.is_near:
            self.kept.add(promise, -1)
            promise.is_near = False
        if promise.due_ms <= now_ms + LEAD_MS:
            self._keep(key, promise)
        else:
            heappush(self._soon, (promise.due_ms, key))
        return promise.due_ms
