"""Translates the errors of SQLite and the file system into faults. Decides nothing about what follows."""

import errno
import sqlite3

from supervisor.runtime.journal.records import Fault


class JournalError(Exception):
    """The journal cannot be opened. The text is one sentence for the operator."""


class JournalLockedError(JournalError):
    """Another daemon uses the same state directory; `pid` is 0 where it is not known."""

    def __init__(self, message: str, *, pid: int) -> None:
        super().__init__(message)
        self.pid = pid


class JournalTooNewError(JournalError):
    """The journal was written by a newer version of the daemon."""


class DamagedError(Exception):
    """The file can be opened but what it holds is not whole."""


STORE_ERRORS = (sqlite3.Error, OSError, DamagedError, ValueError, TypeError, OverflowError)
"""All that storing can raise; `fault_of` parts the disk's errors from those of a record."""

_FAULTS = {
    sqlite3.SQLITE_FULL: Fault.DISK_FULL,
    sqlite3.SQLITE_READONLY: Fault.READONLY,
    sqlite3.SQLITE_CORRUPT: Fault.DAMAGED,
    sqlite3.SQLITE_NOTADB: Fault.DAMAGED,
    sqlite3.SQLITE_IOERR: Fault.IO,
    sqlite3.SQLITE_CANTOPEN: Fault.IO,
    sqlite3.SQLITE_BUSY: Fault.IO,
    sqlite3.SQLITE_LOCKED: Fault.IO,
    sqlite3.SQLITE_PROTOCOL: Fault.IO,
    sqlite3.SQLITE_PERM: Fault.IO,
    sqlite3.SQLITE_AUTH: Fault.IO,
    sqlite3.SQLITE_NOLFS: Fault.IO,
}
_ERRNO_FAULTS = {
    errno.ENOSPC: Fault.DISK_FULL,
    errno.EDQUOT: Fault.DISK_FULL,
    errno.EROFS: Fault.READONLY,
}
_PRIMARY_CODE = 0xFF


def fault_of(error: Exception) -> Fault | None:
    """The fault behind an error of storage; None where the record itself cannot be stored.

    A schema that has lost a table shows as SQLITE_ERROR and is damage, for no statement of ours is wrong.
    """
    if isinstance(error, DamagedError):
        return Fault.DAMAGED
    if isinstance(error, OSError):
        return _ERRNO_FAULTS.get(error.errno or 0, Fault.IO)
    if not isinstance(error, sqlite3.Error):
        return None
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    if code == sqlite3.SQLITE_ERROR:
        return Fault.DAMAGED
    return _FAULTS.get(code & _PRIMARY_CODE)
