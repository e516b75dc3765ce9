"""The log file of a pool's engine: opened for appending, marked at each start, rotated while in use, read from its end.

An engine writes to the file itself and keeps it open, so that it never waits for the daemon and outlives it; rotation
therefore copies and truncates. Lines that the engine writes between the two are lost. Nothing here parses a log.
All functions block: call them from a side thread where the file may be large.
"""

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from supervisor.runtime.private_files import FILE_MODE, open_private

TAIL_BYTES_MAX = 65_536
COPY_BYTES = 1 << 20
MARK = "orchctl: engine run"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Rotated:
    """A rotation took place. `lost_bytes` were not kept: too much for one file, or no room for the copy."""

    lost_bytes: int


def open_log(path: Path) -> int:
    """A descriptor that only appends to `path` (made with mode 0600, never through a link); closed on exec.

    Raises:
        UnsafeStateError, OSError: the file cannot be trusted or opened.
    """
    return open_private(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def write_mark(fd: int, run: str) -> None:
    """Begin a run: one line with its name, which `tail` finds again. `run` has no control characters."""
    os.write(fd, f"\n{MARK} {run}\n".encode())


def tail(path: Path, *, bytes_max: int = TAIL_BYTES_MAX, run: str | None = None) -> str:
    """The last output, at most `bytes_max` bytes of it, as text that is safe on a terminal; "" where there is no file.

    With `run`, nothing older than that run's mark, so that the words of an earlier crash explain no later one.
    Bytes that are not UTF-8 and control characters come as U+FFFD.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        size = os.fstat(fd).st_size
        start = max(0, size - bytes_max)
        data = os.pread(fd, min(size, bytes_max), start)
    finally:
        os.close(fd)
    if start:
        data = data[data.find(b"\n") + 1 :]  # a line cut in two says nothing; one longer than the window stays
    if run is not None:
        data = data.rpartition(f"\n{MARK} {run}\n".encode())[2]
    return _CONTROL.sub("\ufffd", data.decode(errors="replace").replace("\r\n", "\n"))


def rotate_if_needed(path: Path, *, bytes_max: int, files_keep: int) -> Rotated | None:
    """Where `path` is larger than `bytes_max`, keep its newest `bytes_max` bytes as `path.1` and empty it.

    Older ones move to `.2` … `.files_keep`; the oldest goes. The size is what must hold: where the copy fails (a full
    disk), the log is emptied all the same. None where nothing was to be done.

    Raises:
        OSError: the log could not be emptied.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        size = os.fstat(fd).st_size
        if size <= bytes_max:
            return None
        kept = _keep(fd, path, size=size, bytes_max=bytes_max, files_keep=files_keep)
        os.ftruncate(fd, 0)
        return Rotated(lost_bytes=size - kept)
    finally:
        os.close(fd)


def _keep(fd: int, path: Path, *, size: int, bytes_max: int, files_keep: int) -> int:
    """Copy the newest bytes to `path.1`; bytes kept, 0 where there was no room."""
    if files_keep < 1:
        return 0
    copy = path.with_name(f"{path.name}.new")
    try:
        kept = _copy(fd, copy, start=size - bytes_max, length=bytes_max)
        for number in range(files_keep - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                numbered(path, number).replace(numbered(path, number + 1))
        copy.replace(numbered(path, 1))
    except OSError:
        with contextlib.suppress(OSError):
            copy.unlink()
        return 0
    return kept


def _copy(source: int, to: Path, *, start: int, length: int) -> int:
    target = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    done = 0
    try:
        while done < length and (data := os.pread(source, min(COPY_BYTES, length - done), start + done)):
            while data:
                written = os.write(target, data)
                data = data[written:]
                done += written
    finally:
        os.close(target)
    return done


def numbered(path: Path, number: int) -> Path:
    """The `number`-th older file of a log, 1 being the newest."""
    return path.with_name(f"{path.name}.{number}")
