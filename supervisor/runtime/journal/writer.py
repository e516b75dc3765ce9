"""The writer thread: gathers what arrived during the last commit and commits again, without a timer.

Decides what follows a fault: the accepts of the batch are void and no new ones are taken; everything else is kept, for
a running task must be able to end; the file is opened anew and probed until a commit succeeds and all that was kept is
written. Never acknowledges what a commit has not returned for.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from supervisor.runtime.journal.faults import STORE_ERRORS, fault_of
from supervisor.runtime.journal.inbox import Inbox, jobs_of
from supervisor.runtime.journal.records import (
    AcceptRecord,
    CommitFailed,
    Committed,
    Damage,
    Fault,
    FinishRecord,
    JournalDied,
    Record,
    RecordRefused,
    Report,
    WritableAgain,
)
from supervisor.runtime.journal.store import Store

_log = logging.getLogger(__name__)
_DIRTIED_BYTES_PER_COMMIT = 16_384
_PAGE_BYTES = 4096


class Pace(Struct, frozen=True, kw_only=True):
    """How often the writer does what nobody waits for."""

    probe_interval_s: float = 1.0
    idle_s: float = 2.0
    checkpoint_bytes: int = 4 * 2**20


class Totals(Struct, frozen=True, kw_only=True):
    """What the writer has done since it started."""

    commits: int = 0
    records: int = 0
    faults: int = 0
    commit_s: float = 0.0


class _StuckError(Exception):
    """The disk fails; `left` was not stored and may be tried again."""

    def __init__(self, fault: Fault, detail: str, left: Sequence[Record]) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail
        self.left = left


class Writer:
    """The body of the thread. `report` is called from it and must not block."""

    def __init__(self, store: Store, inbox: Inbox, report: Callable[[Report], None], pace: Pace) -> None:
        self._store = store
        self._inbox = inbox
        self._report = report
        self._pace = pace
        self._is_tidy = False
        self._has_given_up = False
        self._bytes_since_checkpoint = 0
        self._in_hand: Sequence[Record] = ()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self.totals = Totals()

    def start(self) -> None:
        """Start the thread; it ends when the inbox is closed and empty, or closed and the disk still fails."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the end of the thread."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:  # noqa: BLE001  (the root of the thread: logged, reported, state changed)
            _log.exception("the journal's writer ended by a bug")
            self._inbox.close()
            rejected = _ids(self._in_hand) + _ids(self._inbox.refuse_accepts())
            self._report(JournalDied(detail=_sentence(error), rejected=rejected))
        finally:
            self._store.close()

    def _serve(self) -> None:
        while not self._has_given_up:
            records = self._inbox.take(None if self._is_tidy else self._pace.idle_s)
            if not records and self._inbox.is_closed:
                return
            try:
                self._write(records) if records else self._tidy()
            except _StuckError as stuck:
                self._mend(stuck)

    def _write(self, records: Sequence[Record]) -> None:
        """Store the batch; where one record spoils it, find and refuse that one and store the others."""
        self._in_hand = records
        try:
            self._commit(records)
        except STORE_ERRORS as error:
            _raise_if_stuck(error, records)
            for position, record in enumerate(records):
                self._write_one(record, records[position:])
        self._checkpoint_if_due()

    def _write_one(self, record: Record, left: Sequence[Record]) -> None:
        try:
            self._commit([record])
        except STORE_ERRORS as error:
            _raise_if_stuck(error, left)
            _log.exception("a record cannot be stored", extra={"record_kind": type(record).__name__})
            self._inbox.settle([record])
            self._in_hand = self._in_hand[1:]
            self._report(RecordRefused(record=record, detail=_sentence(error)))

    def _commit(self, records: Sequence[Record]) -> None:
        began = time.monotonic()
        self._store.commit(records)
        took_s = time.monotonic() - began
        size = self._inbox.settle(records)
        finished = tuple(record.job_id for record in records if isinstance(record, FinishRecord))
        self._in_hand = self._in_hand[len(records) :]
        self._count(commits=1, records=len(records), commit_s=took_s)
        self._report(Committed(accepted=_ids(records), finished=finished))
        self._is_tidy = False
        self._bytes_since_checkpoint += size + _DIRTIED_BYTES_PER_COMMIT
        erasing = sum(jobs_of(record) for record in records if not isinstance(record, AcceptRecord))
        self._bytes_since_checkpoint += erasing * _PAGE_BYTES

    def _checkpoint_if_due(self) -> None:
        # After the report and not within the commit: only the next batch waits for it.
        if self._bytes_since_checkpoint < self._pace.checkpoint_bytes:
            return
        try:
            self._store.checkpoint()
        except STORE_ERRORS as error:
            _raise_if_stuck(error, ())
            raise
        self._bytes_since_checkpoint = 0

    def _tidy(self) -> None:
        try:
            self._is_tidy = self._store.tidy()
        except STORE_ERRORS as error:
            _raise_if_stuck(error, ())
            raise
        self._bytes_since_checkpoint = 0

    def _mend(self, stuck: _StuckError) -> None:
        """Reject accepts, keep the rest, and probe until the file can be written; gives up only when closed."""
        _log.error("the journal cannot be written", extra={"fault": stuck.fault.value, "detail": stuck.detail})
        waiting = self._inbox.refuse_accepts()
        rejected = [record for record in stuck.left if isinstance(record, AcceptRecord)] + waiting
        self._inbox.settle(rejected)
        self._inbox.put_back(record for record in stuck.left if not isinstance(record, AcceptRecord))
        self._in_hand = ()
        self._count(faults=1)
        kept, _ = self._inbox.load()
        self._report(CommitFailed(fault=stuck.fault, detail=stuck.detail, rejected=_ids(rejected), kept=kept))
        self._probe_until_well(stuck)

    def _probe_until_well(self, stuck: _StuckError) -> None:
        damage: Damage | None = None
        while not self._has_given_up:
            is_last_try = self._inbox.wait_closed(self._pace.probe_interval_s)
            try:
                damage = self._reopen(stuck) or damage
                self._write_kept()
            except _StuckError as again:
                self._inbox.put_back(again.left)
                stuck = again
                self._has_given_up = is_last_try
                continue
            self._inbox.take_accepts()
            self._report(WritableAgain(damage=damage))
            _log.warning("the journal can be written again")
            return

    def _reopen(self, stuck: _StuckError) -> Damage | None:
        damage: Damage | None = None
        try:
            if stuck.fault is Fault.DAMAGED:
                damage = self._store.rebuild(stuck.detail)
            self._store.reopen()
        except STORE_ERRORS as error:
            _raise_if_stuck(error, ())
            raise
        return damage

    def _write_kept(self) -> None:
        while records := self._inbox.take(0):
            self._write(records)

    def _count(self, *, commits: int = 0, records: int = 0, faults: int = 0, commit_s: float = 0.0) -> None:
        self.totals = Totals(
            commits=self.totals.commits + commits,
            records=self.totals.records + records,
            faults=self.totals.faults + faults,
            commit_s=self.totals.commit_s + commit_s,
        )


def _raise_if_stuck(error: Exception, left: Sequence[Record]) -> None:
    fault = fault_of(error)
    if fault is not None:
        raise _StuckError(fault, _sentence(error), left) from error


def _ids(records: Iterable[Record]) -> tuple[str, ...]:
    return tuple(record.job_id for record in records if isinstance(record, AcceptRecord))


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
