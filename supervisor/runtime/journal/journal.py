"""The door of the journal, for the event loop: open it, start it, write records, hear what became of them, close it.

Decides nothing about tasks, and never blocks the loop once it is started.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from supervisor.runtime.journal.faults import DamagedError, JournalError
from supervisor.runtime.journal.inbox import Bounds, Inbox
from supervisor.runtime.journal.lock import lock_state_dir
from supervisor.runtime.journal.records import Durability, NotTaken, Record, Report, Restored
from supervisor.runtime.journal.store import Store
from supervisor.runtime.journal.writer import Pace, Totals, Writer
from supervisor.runtime.private_files import UnsafeStateError, ensure_private_dir

JOURNAL_NAME = "journal"


class JournalStatus(Struct, frozen=True, kw_only=True):
    """For metrics and health. `pending_*` is what was written and not yet settled, in records and in bytes."""

    is_writable: bool
    pending_records: int
    pending_bytes: int
    totals: Totals


class Journal:
    """One open journal; it holds the lock of its state directory until it is closed."""

    def __init__(self, store: Store, lock_fd: int, *, bounds: Bounds, pace: Pace) -> None:
        self._store = store
        self._lock_fd: int | None = lock_fd
        self._inbox = Inbox(bounds)
        self._pace = pace
        self._writer: Writer | None = None

    @classmethod
    def open(
        cls,
        state_dir: Path,
        durability: Durability,
        *,
        bounds: Bounds | None = None,
        pace: Pace | None = None,
    ) -> tuple["Journal", Restored]:
        """Lock `state_dir` (made where it is missing), open or make the journal in it and read all that it holds.

        Blocks: call it before the loop serves anybody. A damaged file is set aside and its readable rows are restored.

        Raises:
            JournalLockedError: another daemon runs on this directory.
            JournalTooNewError: a newer daemon wrote the journal.
            JournalError: the directory or file cannot be trusted or used.
        """
        try:
            ensure_private_dir(state_dir)
            lock_fd = lock_state_dir(state_dir)
        except (UnsafeStateError, OSError) as error:
            raise JournalError(f"the state directory {state_dir} cannot be used: {error}") from error
        try:
            store, restored = Store.open(state_dir / JOURNAL_NAME, durability)
        except (UnsafeStateError, OSError, sqlite3.Error, DamagedError) as error:
            os.close(lock_fd)
            raise JournalError(f"the journal in {state_dir} cannot be opened: {error}") from error
        except BaseException:
            os.close(lock_fd)
            raise
        return cls(store, lock_fd, bounds=bounds or Bounds(), pace=pace or Pace()), restored

    def start(self, loop: asyncio.AbstractEventLoop, on_report: Callable[[Report], None]) -> None:
        """Start the writer. `on_report` is called on `loop`, once for each batch or change of state, in order."""

        def report(what: Report) -> None:
            # A loop that is closed while the last batch is written has nobody left to hear of it.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(on_report, what)

        self._writer = Writer(self._store, self._inbox, report, self._pace)
        self._writer.start()

    def write(self, record: Record) -> NotTaken | None:
        """Queue a record for the next commit; None: it was taken and will be reported. Callable before `start`."""
        return self._inbox.put(record)

    @property
    def status(self) -> JournalStatus:
        """How it stands now."""
        records, size = self._inbox.load()
        return JournalStatus(
            is_writable=self._inbox.takes_accepts,
            pending_records=records,
            pending_bytes=size,
            totals=self._writer.totals if self._writer else Totals(),
        )

    def close(self) -> int:
        """Write what waits, end the thread, release the lock; returns the records that could not be written.

        Blocks for as long as the disk does: call it in a thread. Doing it again is harmless.
        """
        self._inbox.close()
        if self._writer is not None:
            self._writer.join()
        self._store.close()
        lock_fd, self._lock_fd = self._lock_fd, None
        if lock_fd is not None:
            os.close(lock_fd)
        records, _ = self._inbox.load()
        return records
