"""Opens a journal whatever state it is in: reads it whole, or saves what can be read into a new one.

Decides that damage is: SQLite says so, a checksum fails, or a table is gone. Never discards a file: it is set aside.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from supervisor.runtime.journal import database, wal
from supervisor.runtime.journal.faults import DamagedError, fault_of
from supervisor.runtime.journal.records import (
    AttemptRecord,
    Damage,
    Durability,
    Fault,
    FinishedTask,
    Restored,
    RestoredTask,
)
from supervisor.runtime.journal.rows import Row, Value, unpack_accept, unpack_finished

POINT_READS_MAX = 200_000
"""Rows tried one by one between the two ends that can be scanned."""
POINT_READS_BLIND_MAX = 10_000
"""The same where one of the ends cannot be scanned at all."""


class Opened(Struct, frozen=True):
    """A connection with all that it holds. `seqs` is the row number of every job; `next_seq` follows the highest."""

    connection: sqlite3.Connection
    restored: Restored
    seqs: dict[str, int]
    next_seq: int


def open_whole(path: Path, durability: Durability) -> Opened:
    """Open the journal at `path`, making or rebuilding it where needed.

    Raises:
        JournalTooNewError, UnsafeStateError, sqlite3.Error, OSError: it cannot be used; nothing was changed or lost.
    """
    database.replace(path)
    if not path.exists() and not path.is_symlink():
        database.build(path, {})
        database.replace(path)
    try:
        _require_no_gap(path)
        return _read(path, durability, damage=None)
    except (sqlite3.Error, DamagedError) as error:
        if fault_of(error) is not Fault.DAMAGED:
            raise
        return _read(path, durability, damage=rebuild(path, str(error)))


def _require_no_gap(path: Path) -> None:
    """Before SQLite looks at the log: it would drop what lies behind a torn frame, and write over it."""
    if gap := wal.find_gap(database.log_of(path)):
        raise DamagedError(f"the log has whole pages behind torn ones: {gap.whole} and {gap.torn}")


def rebuild(path: Path, detail: str) -> Damage:
    """Save every readable, whole row of the damaged journal into a new one that takes its place.

    Raises:
        sqlite3.Error, OSError: the new one could not be written; the damaged one still stands.
    """
    gap = wal.find_gap(database.log_of(path))
    whole, rows_torn = _whole(_salvage(path) if gap is None else _salvage_both(path))
    database.build(path, whole)
    aside = database.replace(path)
    return Damage(
        detail=detail,
        quarantined=aside.name if aside else "",
        waiting_salvaged=len(whole["accepted"]),
        finished_salvaged=len(whole["finished"]),
        rows_torn=rows_torn,
        log_frames_torn=gap.torn if gap else 0,
    )


def _read(path: Path, durability: Durability, *, damage: Damage | None) -> Opened:
    connection = database.connect(path, durability)
    try:
        return _read_all(connection, damage)
    except BaseException:
        connection.close()
        raise


def _read_all(connection: sqlite3.Connection, damage: Damage | None) -> Opened:
    seqs: dict[str, int] = {}
    finished = _finished(connection, seqs)
    unfinished = _unfinished(connection, seqs)
    connection.execute("SELECT writes FROM probe WHERE id = 1").fetchone()
    restored = Restored(unfinished=unfinished, finished=finished, damage=damage)
    return Opened(connection, restored, seqs, 1 + max(seqs.values(), default=0))


def _finished(connection: sqlite3.Connection, seqs: dict[str, int]) -> list[FinishedTask]:
    tasks: list[FinishedTask] = []
    for seq, meta, attempts, outcome, frames in connection.execute("SELECT * FROM finished ORDER BY seq"):
        task = unpack_finished(meta, attempts, outcome, frames)
        seqs[task.accept.job_id] = seq
        tasks.append(task)
    tasks.sort(key=lambda task: task.finish.finished_wall_ms)
    return tasks


def _unfinished(connection: sqlite3.Connection, seqs: dict[str, int]) -> list[RestoredTask]:
    attempts: dict[int, list[tuple[int, int]]] = {}
    for task, attempt, wall_ms in connection.execute("SELECT * FROM attempt ORDER BY task, attempt"):
        if not _all_integers((task, attempt, wall_ms)):
            raise DamagedError("an attempt has a column of the wrong kind")
        attempts.setdefault(task, []).append((attempt, wall_ms))
    tasks: list[RestoredTask] = []
    for seq, meta, body in connection.execute("SELECT * FROM accepted ORDER BY seq"):
        accept = unpack_accept(meta, body)
        seqs[accept.job_id] = seq
        made = tuple(
            AttemptRecord(job_id=accept.job_id, attempt=number, wall_ms=wall_ms)
            for number, wall_ms in attempts.get(seq, ())
        )
        tasks.append(RestoredTask(accept=accept, attempts=made))
    return tasks


def _salvage(path: Path) -> dict[str, list[Row]]:
    try:
        connection = database.open_damaged(path)
    except sqlite3.Error:
        return {table: [] for table in database.TABLES}
    try:
        return {table: _readable(connection, table) for table in database.TABLES}
    finally:
        connection.close()


def _salvage_both(path: Path) -> dict[str, list[Row]]:
    """What SQLite makes of the log up to its gap, and what lies behind that: there, pages may not fit each other.

    Both from copies: the files themselves are set aside as they are.
    """
    found: dict[str, list[Row]] = {table: [] for table in database.TABLES}
    for is_mended in (False, True):
        with database.copied(path, is_log_mended=is_mended) as copy:
            for table, rows in _salvage(copy).items():
                found[table] += rows
    return found


def _readable(connection: sqlite3.Connection, table: str) -> list[Row]:
    """From the front until it fails, from the back until it fails, and what lies between row by row."""
    keys = "task, attempt" if table == "attempt" else "seq"
    rows, is_whole = _scan(connection, f"SELECT * FROM {table} ORDER BY {keys}")  # noqa: S608  (names of TABLES)
    if is_whole:
        return rows
    backward = ", ".join(f"{key} DESC" for key in keys.split(", "))
    tail, _ = _scan(connection, f"SELECT * FROM {table} ORDER BY {backward}")  # noqa: S608  (names of TABLES)
    by_key = {_key(table, row): row for row in (*rows, *tail)}
    if table != "attempt":
        for seq in _gap(rows, tail):
            found, _ = _scan(connection, f"SELECT * FROM {table} WHERE seq = {seq}")  # noqa: S608  (an integer)
            by_key.update((_key(table, row), row) for row in found)
    return [by_key[key] for key in sorted(by_key)]


def _scan(connection: sqlite3.Connection, query: str) -> tuple[list[Row], bool]:
    rows: list[Row] = []
    try:
        rows.extend(connection.execute(query))
    except sqlite3.Error:
        return rows, False
    return rows, True


def _key(table: str, row: Row) -> tuple[int, ...]:
    width = 2 if table == "attempt" else 1
    return tuple(value if isinstance(value, int) else 0 for value in row[:width])


def _gap(head: Sequence[Row], tail: Sequence[Row]) -> range:
    """Row numbers between the last of the head and the first of the tail; with one of them alone, a way on from it."""
    if head and tail:
        first, last = _number(head[-1][0]) + 1, _number(tail[-1][0])
        return range(first, min(last, first + POINT_READS_MAX))
    if head:
        first = _number(head[-1][0]) + 1
        return range(first, first + POINT_READS_BLIND_MAX)
    last = _number(tail[-1][0]) if tail else 1
    return range(max(1, last - POINT_READS_BLIND_MAX), last)


def _number(value: Value) -> int:
    return value if isinstance(value, int) else 0


def _whole(found: Mapping[str, Sequence[Row]]) -> tuple[dict[str, list[Row]], int]:
    """The rows that may stand in a journal, and how many were torn."""
    finished = {_key("finished", row): row for row in found["finished"] if _is_finish(row)}
    accepted = {_key("accepted", row): row for row in found["accepted"] if _is_accept(row)}
    seen = {_key("", row) for table in ("finished", "accepted") for row in found[table]}
    torn = len(seen - finished.keys() - accepted.keys())
    # A task that shows as both was being moved when the pages were lost: it has ended.
    accepted = {key: row for key, row in accepted.items() if key not in finished}
    attempts = {_key("attempt", row): row for row in found["attempt"] if _all_integers(row)}
    attempts = {key: row for key, row in attempts.items() if key[:1] in accepted}
    tables = {"accepted": accepted, "attempt": attempts, "finished": finished}
    return {table: [rows[key] for key in sorted(rows)] for table, rows in tables.items()}, torn


def _is_accept(row: Row) -> bool:
    try:
        unpack_accept(*row[1:])
    except DamagedError:
        return False
    return True


def _is_finish(row: Row) -> bool:
    try:
        unpack_finished(*row[1:])
    except DamagedError:
        return False
    return True


def _all_integers(values: Iterable[Value]) -> bool:
    return all(isinstance(value, int) for value in values)
