"""What is due when: one heap of alarms for the whole core.

An alarm is checked against the state when it fires, so that nothing needs to be cancelled. Owners say when one became
pointless; once most of the heap is, it is rebuilt. Entries are plain tuples: 100,000 waiting tasks have one each.
"""

from collections.abc import Callable
from enum import IntEnum
from heapq import heapify, heappop, heappush

_REBUILD_MIN = 1024


class Alarm(IntEnum):
    """What an alarm is about; the key beside it names the task, the run or the pool."""

    TASK_DEADLINE = 1
    RUN_WALL = 2
    READERS_GONE = 3
    WORKER_PHASE = 4
    WORKER_STABLE = 5
    DRAIN_DEADLINE = 6
    HALT_DEADLINE = 7
    RETENTION = 8
    SESSION_END = 20
    BREAKER = 9
    PROBE = 21
    LEASE = 30
    QUIESCE_DEADLINE = 50
    DEVICE_FAULT = 31
    ROLLOUT = 40


Entry = tuple[float, Alarm, str]


class Agenda:
    """Alarms by due time. Push and pop are O(log n)."""

    __slots__ = ("_heap", "_pointless")

    def __init__(self) -> None:
        self._heap: list[Entry] = []
        self._pointless = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, due_ms: float, alarm: Alarm, key: str) -> None:
        """Fire `alarm` for `key` at `due_ms`."""
        heappush(self._heap, (due_ms, alarm, key))

    def next_due_ms(self) -> float | None:
        """When the first alarm fires; None on an empty agenda."""
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now_ms: float) -> Entry | None:
        """The first alarm that is due, removed; None where none is."""
        if self._heap and self._heap[0][0] <= now_ms:
            return heappop(self._heap)
        return None

    def note_pointless(self, is_live: Callable[[Entry], bool]) -> None:
        """One entry will do nothing when it fires. Rebuilds the heap once half of it is so."""
        self._pointless += 1
        if self._pointless * 2 > len(self._heap) >= _REBUILD_MIN:
            self._heap = [entry for entry in self._heap if is_live(entry)]
            heapify(self._heap)
            self._pointless = 0
