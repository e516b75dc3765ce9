"""One daemon per state directory: an exclusive lock that the kernel drops when its holder dies."""

import contextlib
import fcntl
import os
from pathlib import Path

from supervisor.runtime.journal.faults import JournalLockedError
from supervisor.runtime.private_files import open_private

LOCK_NAME = "daemon.lock"
_PID_DIGITS_MAX = 16


def lock_state_dir(state_dir: Path) -> int:
    """Take the lock; it is held until the returned descriptor is closed.

    Raises:
        JournalLockedError: another process holds it; names its pid.
        UnsafeStateError, OSError: the lock file cannot be used.
    """
    fd = open_private(state_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = _holder(fd)
        os.close(fd)
        who = f"process {pid}" if pid else "another process"
        raise JournalLockedError(f"{who} already uses the state directory {state_dir}", pid=pid) from None
    os.ftruncate(fd, 0)
    with contextlib.suppress(OSError):  # a full disk costs the name of the holder, not the lock
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    return fd


def _holder(fd: int) -> int:
    text = os.pread(fd, _PID_DIGITS_MAX, 0).strip()
    return int(text) if text.isdigit() else 0
