"""Whether a queue has room for a task, and when one that finds none should come back.

Room counts what waits, what is being written, and the places that are kept for promises. A task whose promise is due
may take any real room; a newcomer only what is left beside the kept places. Places are kept where the answer to a
newcomer would be 429: a queue that drops its oldest for a newcomer (drop-lru) keeps none, and no queue does while a
slot is free and nothing waits. Nobody is dropped to keep a place, and a task that is refused for its deadline is
promised none: it might never fit.
"""

from math import ceil

from supervisor.core import placement
from supervisor.core.promises import SPACING, Kept
from supervisor.core.replicas import ReplicaSet
from supervisor.core.tasks import Task
from supervisor.core.waitlist import BATCH_EVERY
from supervisor.wire.codes import FullPolicy, Priority, Reason

RETRY_FULL_MS = 1_000
"""The shortest hint of a first refusal."""
RETRY_AGAIN_MS = 250
"""The shortest hint where a promise was not kept: its place is still the next."""
DEADLINE_SHARE = 0.8
"""A task that would start too late is told to come back when it would wait this share of its deadline."""
KEPT_BYTES_SHARE = 0.5
"""Of the queue's bytes are kept for promises at most: a few large tasks never keep out all small ones."""

_NONE = Kept()


def bound_hit(task: Task, home: ReplicaSet, now_ms: float) -> Reason | None:
    """Which bound stands against the task, kept places included; None where it fits."""
    return _bound_hit(task, home, _kept_from(task, home, now_ms))


def has_real_room(task: Task, home: ReplicaSet) -> bool:
    """Whether the task would fit if no place were kept."""
    return _bound_hit(task, home, _NONE) is None


def _bound_hit(task: Task, home: ReplicaSet, kept: Kept) -> Reason | None:
    shown = home.promises.shown
    kept_bytes = min(kept.size_bytes * shown, home.bytes_max * KEPT_BYTES_SHARE)
    size_bytes = home.waiting.size_bytes + home.reserved_bytes + kept_bytes
    if size_bytes + task.size_bytes > home.bytes_max:
        return Reason.QUEUE_BYTES
    total = home.occupied_total + round(kept.total * shown)
    own = home.occupied(task.priority) + round(kept.of(task.priority) * shown)
    is_full = total >= home.capacity_total or own >= home.capacity[task.priority]
    return Reason.QUEUE_FULL if is_full else None


def too_late_ms(task: Task, home: ReplicaSet, predicted_ms: int | None, now_ms: float) -> float | None:
    """By how much the task would start too late; None where it would not. Promised places go before a newcomer."""
    left_ms = task.deadline_at_ms - now_ms
    if left_ms < 0:
        return 0.0
    if predicted_ms is None:
        return None
    kept = _kept_from(task, home, now_ms)
    before_ms = kept.total * home.promises.shown * (_place_ms(home) or 0.0) if kept.total else 0.0
    start_ms = predicted_ms + before_ms
    return start_ms - DEADLINE_SHARE * left_ms if start_ms > left_ms else None


def retry_late_ms(late_ms: float) -> int:
    """When a task that would start too late should come back, if nobody comes before it. Promises nothing."""
    return max(ceil(late_ms), RETRY_FULL_MS)


def retry_in_ms(task: Task, home: ReplicaSet, reason: Reason, now_ms: float) -> int:
    """When a refused task should come back: the time of its promised place, or an estimate where none is promised."""
    place_ms = _place_ms(home, task.priority)
    if place_ms is None or not _keeps_places(home):
        wait_ms = home.forecast.ms_per_token * task.expected_tokens / max(home.slots_serving, 1)
        return max(ceil(wait_ms), RETRY_FULL_MS)
    if reason is Reason.QUEUE_BYTES:
        place_ms *= max(task.size_bytes * len(home.waiting) / max(home.waiting.size_bytes, 1), 1.0)
    return max(ceil(_due_ms(task, home, place_ms, now_ms) - now_ms), 1)


def _due_ms(task: Task, home: ReplicaSet, place_ms: float, now_ms: float) -> float:
    key, promises = (task.tenant, task.task_id), home.promises
    promise = promises.find(key)
    if promise is None:
        first_ms = now_ms + max(place_ms * SPACING, RETRY_FULL_MS)
        return promises.give(key, task.priority, task.size_bytes, now_ms, first_ms, place_ms)
    if promise.due_ms > now_ms:
        return promise.due_ms
    return promises.give_again(key, now_ms, now_ms + RETRY_AGAIN_MS, place_ms)


def _keeps_places(home: ReplicaSet) -> bool:
    return home.members[0].plan.full_policy is not FullPolicy.DROP_LRU


def _kept_from(task: Task, home: ReplicaSet, now_ms: float) -> Kept:
    """The places that are kept and are not this task's to take."""
    home.promises.settle(now_ms)
    if not home.promises.kept.total:
        return _NONE
    promise = home.promises.find((task.tenant, task.task_id))
    is_due = promise is not None and promise.is_near
    is_idle = not home.occupied_total and placement.has_slot(task, home)
    return _NONE if is_due or is_idle or not _keeps_places(home) else home.promises.kept


def _place_ms(home: ReplicaSet, priority: Priority | None = None) -> float | None:
    """Milliseconds between two places that come free; for one class by its share of the dispatches."""
    tokens = sum(home.expected_tokens(each) for each in Priority)
    place_ms = home.forecast.place_ms(home.occupied_total, tokens, home.slots_serving)
    is_mixed = all(home.occupied(each) or home.promises.has_any(each) for each in Priority)
    if place_ms is None or priority is None or not is_mixed:
        return place_ms
    share = 1 / BATCH_EVERY if priority is Priority.BATCH else 1 - 1 / BATCH_EVERY
    return place_ms / share
