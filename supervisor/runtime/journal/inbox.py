"""The bounded way from the event loop to the writer thread. Never blocks the loop; decides only what still fits.

A record counts against the bounds until it is settled, so what a failing disk makes the writer keep counts as well.
Accepts have the smaller share: a task that runs must be able to end although newcomers fill the queue.
"""

import threading
from collections import deque
from collections.abc import Iterable

from msgspec import Struct

from supervisor.runtime.journal.records import AcceptRecord, AttemptRecord, FinishRecord, ForgetRecord, NotTaken, Record

RECORD_OVERHEAD_BYTES = 512


class Bounds(Struct, frozen=True, kw_only=True):
    """What may be on its way to the disk, in records and bytes; and what one commit takes."""

    accept_records_max: int = 32_768
    accept_bytes_max: int = 64 * 2**20
    records_max: int = 131_072
    bytes_max: int = 256 * 2**20
    batch_jobs_max: int = 4096
    batch_bytes_max: int = 8 * 2**20


class Inbox:
    """Records in the order in which they came."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._changed = threading.Condition(threading.Lock())
        self._waiting: deque[Record] = deque()
        self._records = 0
        self._bytes = 0
        self._is_closed = False
        self._has_sleeper = False
        self._takes_accepts = True

    def put(self, record: Record) -> NotTaken | None:
        """Queue a record; None: it was taken."""
        size = size_of(record)
        is_accept = isinstance(record, AcceptRecord)
        with self._changed:
            if self._is_closed:
                return NotTaken.CLOSED
            if is_accept and not self._takes_accepts:
                return NotTaken.NOT_WRITABLE
            if not self._fits(size, is_accept=is_accept):
                return NotTaken.FULL
            self._waiting.append(record)
            self._records += 1
            self._bytes += size
            if self._has_sleeper:
                self._has_sleeper = False
                self._changed.notify()
        return None

    def take(self, timeout_s: float | None) -> list[Record]:
        """Wait for records and take the oldest, one commit's worth; empty when the time is over or it is closed."""
        with self._changed:
            if not self._waiting and not self._is_closed:
                self._has_sleeper = True
                self._changed.wait(timeout_s)
                self._has_sleeper = False
            return self._take_batch()

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait out the time unless it is closed; True: it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_closed, timeout_s)

    def settle(self, records: Iterable[Record]) -> int:
        """These have been stored or refused for good: their room is free again. Returns their bytes."""
        sizes = [size_of(record) for record in records]
        size = sum(sizes)
        with self._changed:
            self._records -= len(sizes)
            self._bytes -= size
        return size

    def refuse_accepts(self) -> list[AcceptRecord]:
        """Take no more accepts until `take_accepts`; returns those that were waiting."""
        with self._changed:
            self._takes_accepts = False
            refused = [record for record in self._waiting if isinstance(record, AcceptRecord)]
            self._waiting = deque(record for record in self._waiting if not isinstance(record, AcceptRecord))
        return refused

    def take_accepts(self) -> None:
        """The disk is well again."""
        with self._changed:
            self._takes_accepts = True

    def put_back(self, records: Iterable[Record]) -> None:
        """Return taken, unsettled records to the front, in their order."""
        with self._changed:
            self._waiting.extendleft(reversed(list(records)))

    def close(self) -> None:
        """Take nothing more; what waits is still handed out."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether nothing more can come."""
        with self._changed:
            return self._is_closed

    @property
    def takes_accepts(self) -> bool:
        """Whether a new task may be accepted now."""
        with self._changed:
            return self._takes_accepts and not self._is_closed

    def load(self) -> tuple[int, int]:
        """Unsettled records, and their bytes."""
        with self._changed:
            return self._records, self._bytes

    def _fits(self, size: int, *, is_accept: bool) -> bool:
        bounds = self._bounds
        records_max = bounds.accept_records_max if is_accept else bounds.records_max
        bytes_max = bounds.accept_bytes_max if is_accept else bounds.bytes_max
        return self._records < records_max and self._bytes + size <= bytes_max

    def _take_batch(self) -> list[Record]:
        batch: list[Record] = []
        size = jobs = 0
        while self._waiting and jobs < self._bounds.batch_jobs_max and size < self._bounds.batch_bytes_max:
            record = self._waiting.popleft()
            size += size_of(record)
            jobs += jobs_of(record)
            batch.append(record)
        return batch


def jobs_of(record: Record) -> int:
    """How many jobs, and so roughly how many pages of the file, a record touches."""
    return len(record.job_ids) if isinstance(record, ForgetRecord) else 1


def size_of(record: Record) -> int:
    """Bytes that a record holds in memory, roughly."""
    if isinstance(record, AcceptRecord):
        return RECORD_OVERHEAD_BYTES + len(record.body)
    if isinstance(record, FinishRecord):
        return RECORD_OVERHEAD_BYTES + len(record.summary) + len(record.frames)
    if isinstance(record, AttemptRecord):
        return RECORD_OVERHEAD_BYTES
    return RECORD_OVERHEAD_BYTES + sum(map(len, record.job_ids))
