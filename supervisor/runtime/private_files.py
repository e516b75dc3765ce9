"""Files of the daemon that nobody else may read: made, checked and replaced. Knows nothing of what is in them.

Whatever the umask, a file made here has mode 0600 and a directory 0700. A symbolic link, a foreign owner or a directory
that others may write to is refused, never repaired: it may be somebody's trap.
"""

import contextlib
import os
import stat
from itertools import pairwise
from pathlib import Path

FILE_MODE = 0o600
DIR_MODE = 0o700
ASIDE_MAX = 3
"""Unreadable files of one name that are kept for whoever wants to know."""
_OTHERS_WRITE = 0o022
_OTHERS_ANY = 0o077


class UnsafeStateError(Exception):
    """A directory or file of the daemon's state cannot be trusted. The text is one sentence with the way out."""


def ensure_private_dir(path: Path) -> None:
    """Make `path` (mode 0700, with its parents) or check it.

    Raises:
        UnsafeStateError: it is a link or no directory, belongs to another user, or others may write to it.
        OSError: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=DIR_MODE)
        path.chmod(DIR_MODE)
    except FileExistsError:
        _check_dir(path, path.lstat())


def _check_dir(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeStateError(f"{path} must be a directory of its own, not a link or a file")
    if found.st_uid != os.geteuid():
        raise UnsafeStateError(f"{path} belongs to user {found.st_uid}, not to user {os.geteuid()} who runs the daemon")
    if found.st_mode & _OTHERS_WRITE:
        raise UnsafeStateError(f"others may write to {path}; run: chmod 700 {path}")


def open_private(path: Path, flags: int) -> int:
    """Open (with `os.O_CREAT`: make) a regular file of ours, mode 0600; returns its descriptor, closed on exec.

    Raises:
        UnsafeStateError: it is a link or no regular file, or belongs to another user.
        OSError: it cannot be opened.
    """
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, FILE_MODE)
    except OSError as error:
        if path.is_symlink():
            raise UnsafeStateError(f"{path} is a symbolic link, which is never followed") from error
        raise
    try:
        _check_file(path, fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_file(path: Path, fd: int) -> None:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise UnsafeStateError(f"{path} is not a regular file")
    if found.st_uid != os.geteuid():
        raise UnsafeStateError(f"{path} belongs to user {found.st_uid}, not to user {os.geteuid()} who runs the daemon")
    if found.st_mode & _OTHERS_ANY or stat.S_IMODE(found.st_mode) != FILE_MODE:
        os.fchmod(fd, FILE_MODE)


def replace_private(path: Path, data: bytes) -> None:
    """Put `data` at `path`, whole or not at all, also over a crash: temporary file, fsync, rename, fsync of the folder.

    Raises:
        UnsafeStateError, OSError: as `open_private`; the old content then still stands.
    """
    temporary = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    fd = open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with open(fd, "wb") as file:  # noqa: PTH123  (a descriptor, not a path)
        file.write(data)
        file.flush()
        os.fsync(fd)
    temporary.replace(path)
    sync_dir(path.parent)


def put_aside(path: Path) -> Path:
    """Rename what is at `path`, whatever it is, so that nothing is written over it; gives where it is now.

    The newest is `.bad-1`; of older ones `ASIDE_MAX` in all are kept.

    Raises:
        OSError: it is where it was.
    """
    places = [path.with_name(f"{path.name}.bad-{number}") for number in range(1, ASIDE_MAX + 1)]
    for older, newer in pairwise(reversed(places)):
        with contextlib.suppress(FileNotFoundError):
            newer.replace(older)
    path.replace(places[0])
    return places[0]


def sync_dir(path: Path) -> None:
    """Make renames and removals in the directory lasting."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
