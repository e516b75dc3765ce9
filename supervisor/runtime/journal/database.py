"""The SQLite file: its schema, its settings, and how it is opened, made and replaced. Knows no meaning.

A journal is built beside its place and renamed into it when it is whole, so an empty or half-made file at its place is
always damage. The steps of a replacement can be repeated after a crash between any two of them.
"""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from supervisor.runtime.journal import wal
from supervisor.runtime.journal.faults import DamagedError, JournalTooNewError
from supervisor.runtime.journal.records import Durability
from supervisor.runtime.journal.rows import Row
from supervisor.runtime.private_files import open_private, sync_dir

SCHEMA_VERSION = 1
QUARANTINE_MAX = 4
"""Damaged files kept: they hold prompts and take space; the oldest goes first."""

WAL_KEPT_BYTES_MAX = 64 * 2**20
"""A log that grew beyond this is cut back. Below, it is written over in place: fdatasync has no new size to record."""
WAL_PAGES_MAX = 16_384
"""64 MiB: the checkpoint of last resort, within a commit; the writer makes its own long before."""
CACHE_KIB = 8192

TABLES: Mapping[str, tuple[str, ...]] = {
    "accepted": ("seq", "meta", "body"),
    "attempt": ("task", "attempt", "wall_ms"),
    "finished": ("seq", "meta", "attempts", "outcome", "frames"),
}
_SCHEMA = (
    "CREATE TABLE accepted (seq INTEGER PRIMARY KEY, meta BLOB NOT NULL, body BLOB NOT NULL)",
    """CREATE TABLE attempt (
        task INTEGER, attempt INTEGER, wall_ms INTEGER NOT NULL, PRIMARY KEY (task, attempt)
    ) WITHOUT ROWID""",
    """CREATE TABLE finished (
        seq INTEGER PRIMARY KEY, meta BLOB NOT NULL, attempts INTEGER NOT NULL,
        outcome BLOB NOT NULL, frames BLOB NOT NULL
    )""",
    "CREATE TABLE probe (id INTEGER PRIMARY KEY, writes INTEGER NOT NULL)",
    "INSERT INTO probe VALUES (1, 0)",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_SYNCHRONOUS = {Durability.FULL: "FULL", Durability.NORMAL: "NORMAL"}


def connect(path: Path, durability: Durability) -> sqlite3.Connection:
    """Open an existing journal for its only user; an unfinished replacement is completed first.

    The connection may be handed to another thread. No shared-memory file: the lock is exclusive.

    Raises:
        DamagedError, sqlite3.Error: see `faults.fault_of`.
        JournalTooNewError: a newer daemon wrote it.
        UnsafeStateError, OSError: the file cannot be trusted or opened.
    """
    os.close(open_private(path, os.O_RDWR))
    connection = _open(path)
    try:
        _configure(connection, durability)
        _check_version(path, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _open(path: Path) -> sqlite3.Connection:
    # The name is given as a URI with mode=rw so that SQLite never makes the file itself, with a mode of its own.
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
    connection.text_factory = bytes  # there is no text in it; what damage turns into text must not fail to decode
    return connection


def open_damaged(path: Path) -> sqlite3.Connection:
    """Open a damaged journal to read what it still holds, also where it is shorter than its header says.

    Raises:
        sqlite3.Error: not even that.
    """
    connection = _open(path)
    for setting in ("locking_mode = EXCLUSIVE", "writable_schema = ON", "temp_store = MEMORY"):
        with contextlib.suppress(sqlite3.Error):
            connection.execute(f"PRAGMA {setting}").fetchall()
    return connection


def _configure(connection: sqlite3.Connection, durability: Durability) -> None:
    for setting in (
        "locking_mode = EXCLUSIVE",
        "trusted_schema = OFF",
        "cell_size_check = ON",
        "temp_store = MEMORY",
        f"cache_size = -{CACHE_KIB}",
        "journal_mode = WAL",
        f"synchronous = {_SYNCHRONOUS[durability]}",
        "secure_delete = ON",
        f"wal_autocheckpoint = {WAL_PAGES_MAX}",
        f"journal_size_limit = {WAL_KEPT_BYTES_MAX}",
    ):
        connection.execute(f"PRAGMA {setting}").fetchall()


def _check_version(path: Path, connection: sqlite3.Connection) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise JournalTooNewError(
            f"{path} has format {version}, this daemon knows up to {SCHEMA_VERSION}; start the newer daemon again"
        )
    if version < SCHEMA_VERSION:
        raise DamagedError("the file has no schema")


def fold_log(connection: sqlite3.Connection, mode: str = "TRUNCATE") -> None:
    """Move the log into the file, and cut it where the mode is TRUNCATE.

    Raises:
        sqlite3.Error, OSError: not all of it could be moved.
    """
    row = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    if row[0]:
        raise OSError("another process reads the journal file")


def build(path: Path, tables: Mapping[str, Sequence[Row]]) -> None:
    """Make a whole new journal of these rows at `path`, setting aside nothing: see `replace`.

    Raises:
        sqlite3.Error, OSError: it could not be made; what stands at `path` is untouched.
    """
    draft = _beside(path, "draft")
    _remove(draft)
    os.close(open_private(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL))
    connection = _open(draft)
    try:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        _configure(connection, Durability.FULL)
        connection.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            connection.execute(statement)
        for table, rows in tables.items():
            places = ",".join("?" * len(TABLES[table]))
            connection.executemany(f"INSERT INTO {table} VALUES ({places})", rows)  # noqa: S608  (names of TABLES)
        connection.execute("COMMIT")
        fold_log(connection)  # closing would do it too, and be silent where it fails
    finally:
        connection.close()
    draft.replace(_beside(path, "rebuilt"))
    sync_dir(path.parent)


def replace(path: Path) -> Path | None:
    """Put a rebuilt journal, if there is one, in its place. Returns where the old file went, None if there was none.

    Raises:
        OSError: a rename failed; the next call goes on from there.
    """
    rebuilt = _beside(path, "rebuilt")
    if not rebuilt.exists():
        return None
    # The old log must be gone before the new file takes the place: SQLite would play it into the new one.
    aside = _quarantine(path) if path.exists() or log_of(path).exists() else None
    rebuilt.replace(path)
    sync_dir(path.parent)
    return aside


def _quarantine(path: Path) -> Path:
    taken = quarantined(path)
    number = 1 + max((int(old.name.rpartition("-")[2]) for old in taken), default=0)
    aside = path.with_name(f"{path.name}.damaged-{number}")
    for source, target in ((path, aside), (log_of(path), log_of(aside))):
        with contextlib.suppress(FileNotFoundError):
            source.replace(target)
    sync_dir(path.parent)
    for old in taken[: max(0, len(taken) + 1 - QUARANTINE_MAX)]:
        _remove(old)
    return aside


def quarantined(path: Path) -> list[Path]:
    """The damaged files kept beside `path`, oldest first."""
    prefix = f"{path.name}.damaged-"
    found = [entry for entry in path.parent.iterdir() if entry.name.startswith(prefix)]
    numbered = [entry for entry in found if entry.name.removeprefix(prefix).isdigit()]
    return sorted(numbered, key=lambda entry: int(entry.name.removeprefix(prefix)))


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name}.{what}")


def log_of(path: Path) -> Path:
    """Where the write-ahead log of a journal lies."""
    return path.with_name(f"{path.name}-wal")


@contextlib.contextmanager
def copied(path: Path, *, is_log_mended: bool) -> Iterator[Path]:
    """A copy of a journal with its log as it is, or with all that is whole in it; to be read and thrown away.

    Raises:
        OSError: it could not be made; nothing was changed.
    """
    copy = _beside(path, "copy")
    try:
        _remove(copy)
        for file in (copy, log_of(copy)):
            os.close(open_private(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        shutil.copyfile(path, copy)
        if is_log_mended:
            wal.mend(log_of(path), log_of(copy))
        else:
            shutil.copyfile(log_of(path), log_of(copy))
        yield copy
    finally:
        _remove(copy)


def _remove(path: Path) -> None:
    for file in (path, log_of(path)):
        file.unlink(missing_ok=True)
