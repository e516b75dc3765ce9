"""Puts batches of records into the file, each in one transaction. Used by one thread; reports nothing by itself.

Row numbers are given in the order of acceptance. Which number a job has is remembered here and not indexed in the file:
an index on random ids would dirty a page for each task.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from supervisor.runtime.journal import database, salvage
from supervisor.runtime.journal.records import (
    AcceptRecord,
    AttemptRecord,
    Damage,
    Durability,
    FinishRecord,
    ForgetRecord,
    Record,
    Restored,
)
from supervisor.runtime.journal.rows import ROWS_PER_STATEMENT, Value, in_chunks, pack_accept, pack_finish

FREE_PAGES_KEPT = 4096
"""16 MiB that stay in the file for later tasks."""
VACUUM_PAGES = 1024
"""4 MiB: the most that one call gives back, so that no batch waits long for it."""


def _statements(head: str, row: str, tail: str = "") -> dict[int, str]:
    return {length: head + ",".join([row] * length) + tail for length in ROWS_PER_STATEMENT}


_ACCEPT = _statements("INSERT INTO accepted VALUES ", "(?,?,?)")
_ATTEMPT = _statements("INSERT OR REPLACE INTO attempt VALUES ", "(?,?,?)")
_FINISH = (
    "INSERT OR IGNORE INTO finished SELECT seq, meta,"
    " (SELECT coalesce(max(attempt), 0) FROM attempt WHERE task = seq), ?, ? FROM accepted WHERE seq = ?"
)
_DROP_ACCEPTED = _statements("DELETE FROM accepted WHERE seq IN (", "?", ")")
_DROP_ATTEMPTS = _statements("DELETE FROM attempt WHERE task IN (", "?", ")")
_DROP_FINISHED = _statements("DELETE FROM finished WHERE seq IN (", "?", ")")


class Store:
    """The open journal file. After any fault `reopen` it: a connection that saw a failed fsync is not to be trusted."""

    def __init__(self, path: Path, durability: Durability, opened: salvage.Opened) -> None:
        self._path = path
        self._durability = durability
        self._connection: sqlite3.Connection | None = opened.connection
        self._seqs = opened.seqs
        self._next_seq = opened.next_seq

    @classmethod
    def open(cls, path: Path, durability: Durability) -> tuple[Self, Restored]:
        """Open, make or rebuild the journal and read all of it. Raises as `salvage.open_whole`."""
        opened = salvage.open_whole(path, durability)
        return cls(path, durability, opened), opened.restored

    def commit(self, records: Sequence[Record]) -> None:
        """Store the batch, all or nothing; on return it is as durable as was asked for.

        A finish or attempt of an unknown job is taken without effect, so that a batch can be tried again.

        Raises:
            sqlite3.Error, OSError, ...: nothing of the batch counts; see `faults.fault_of`.
        """
        connection = self._open_connection()
        batch = _Batch(self._seqs, self._next_seq, records)
        connection.execute("BEGIN IMMEDIATE")
        try:
            batch.apply(connection)
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        self._seqs.update(batch.added)
        self._next_seq += len(batch.added)
        for job_id in batch.forgotten:
            self._seqs.pop(job_id, None)

    def checkpoint(self) -> None:
        """Move the log into the file; the next commit writes over the log from its start. Raises as `commit`."""
        self._checkpoint("PASSIVE")

    def tidy(self) -> bool:
        """Move and cut the log, with the erased prompts in it, and give free pages back; True: nothing is left to do.

        Raises: as `commit`.
        """
        connection = self._open_connection()
        surplus = int(connection.execute("PRAGMA freelist_count").fetchone()[0]) - FREE_PAGES_KEPT
        if surplus > 0:
            # As a script: `execute` would take one step of this statement, which is one page.
            connection.executescript(f"PRAGMA incremental_vacuum({min(surplus, VACUUM_PAGES)})")
        self._checkpoint("TRUNCATE")
        return surplus <= VACUUM_PAGES

    def reopen(self) -> None:
        """After a fault: trust nothing but the file, write all of it down anew, and prove that a commit works.

        A batch whose fsync failed may stand whole in the log all the same; nobody was told, so its accepts are erased.
        The full checkpoint matters: log pages that a failed fsync left clean in memory would never reach the disk.

        Raises: as `commit`; call it again later.
        """
        self.close()
        self._connection = database.connect(self._path, self._durability)
        self._checkpoint("TRUNCATE")
        self._connection.execute("BEGIN IMMEDIATE")
        for table in ("accepted", "finished"):
            self._connection.execute(f"DELETE FROM {table} WHERE seq >= ?", (self._next_seq,))  # noqa: S608  (two names)
        self._connection.execute("DELETE FROM attempt WHERE task >= ?", (self._next_seq,))
        self._connection.execute("UPDATE probe SET writes = writes + 1")
        self._connection.execute("COMMIT")

    def rebuild(self, detail: str) -> Damage:
        """Set the damaged file aside and go on with what can be read of it; `reopen` comes next. Raises as `commit`."""
        self.close()
        damage = salvage.rebuild(self._path, detail)
        opened = salvage.open_whole(self._path, self._durability)
        self._connection = opened.connection
        # What nobody was told of may have been salvaged; its row numbers are not below ours, and `reopen` erases it.
        self._seqs = {job_id: seq for job_id, seq in opened.seqs.items() if seq < self._next_seq}
        return damage

    def close(self) -> None:
        """Close the file, folding the log into it where that works; the log is kept where it does not."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise OSError("the journal file is not open")
        return self._connection

    def _checkpoint(self, mode: str) -> None:
        database.fold_log(self._open_connection(), mode)


class _Batch:
    """One transaction: the records by kind, which keeps the order that matters, that of the records of one job."""

    def __init__(self, seqs: dict[str, int], next_seq: int, records: Iterable[Record]) -> None:
        self._seqs = seqs
        self._next_seq = next_seq
        self.added: dict[str, int] = {}
        self.forgotten: list[str] = []
        self._accepts: list[tuple[Value, ...]] = []
        self._attempts: list[tuple[Value, ...]] = []
        self._finishes: list[tuple[Value, ...]] = []
        for record in records:
            self._sort_in(record)

    def apply(self, connection: sqlite3.Connection) -> None:
        """Run the statements, in the order of a job's life."""
        _run(connection, _ACCEPT, self._accepts)
        _run(connection, _ATTEMPT, self._attempts)
        if self._finishes:
            connection.executemany(_FINISH, self._finishes)
            ended = [(row[-1],) for row in self._finishes]
            _run(connection, _DROP_ACCEPTED, ended)
            _run(connection, _DROP_ATTEMPTS, ended)
        gone = [(seq,) for seq in map(self._seq_of, self.forgotten) if seq is not None]
        for statements in (_DROP_FINISHED, _DROP_ACCEPTED, _DROP_ATTEMPTS):
            _run(connection, statements, gone)

    def _sort_in(self, record: Record) -> None:
        if isinstance(record, AcceptRecord):
            if self._seq_of(record.job_id) is not None:
                raise ValueError(f"job {record.job_id} was accepted before")
            seq = self._next_seq + len(self.added)
            self.added[record.job_id] = seq
            self._accepts.append((seq, *pack_accept(record)))
        elif isinstance(record, ForgetRecord):
            self.forgotten.extend(record.job_ids)
        else:
            self._sort_in_progress(record)

    def _sort_in_progress(self, record: AttemptRecord | FinishRecord) -> None:
        seq = self._seq_of(record.job_id)
        if seq is None:
            return
        if isinstance(record, AttemptRecord):
            self._attempts.append((seq, record.attempt, record.wall_ms))
        else:
            self._finishes.append((*pack_finish(record), seq))

    def _seq_of(self, job_id: str) -> int | None:
        return self.added.get(job_id) or self._seqs.get(job_id)


def _run(connection: sqlite3.Connection, statements: dict[int, str], rows: Sequence[tuple[Value, ...]]) -> None:
    for chunk in in_chunks(rows):
        connection.execute(statements[len(chunk)], [value for row in chunk for value in row])
