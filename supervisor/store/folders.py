"""Holds the folders of a store, so that what is written or thrown away below them cannot be led elsewhere by a link.

A folder is opened once, without following its last step, and then named by its descriptor. Whoever may write to the
store can put a link at any name at any moment, and root works here too.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from supervisor.store.faults import StoreError, disk_fault

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NOTE_BYTES_MAX = 4096
_NOTE_MODE = 0o644
_LINK_CODES = (errno.ENOTDIR, errno.ELOOP)


@contextmanager
def held_folder(path: Path, steps: str = "", mode: int | None = None) -> Iterator[Path]:
    """A path to the folder `steps` below `path` that stays with it whatever happens to its name. Raises StoreError.

    `path` may be one that this gave. With `mode` the steps that are missing are made.
    """
    fd = _open(path)
    try:
        here = path
        for step in steps.split("/") if steps else ():
            here = here / step
            fd = _step(fd, step, here, mode)
        yield _named_by(fd)
    finally:
        os.close(fd)


def remove_tree(folder: Path, name: str) -> None:
    """Throw away the folder `name` in a held folder, with all below it; a link is left alone, and so are faults."""
    fd = _descriptor_of(folder)
    assert fd is not None, f"{folder} is not held"
    with suppress(OSError):
        shutil.rmtree(name, dir_fd=fd)


def open_to_all(folder: Path, mode: int) -> None:
    """Give a held folder, and every one below it, these rights, and make its names lasting. Raises OSError."""
    fd = _descriptor_of(folder)
    assert fd is not None, f"{folder} is not held"
    for _, _, _, each in os.fwalk(".", dir_fd=fd):
        os.fchmod(each, mode)
        os.fsync(each)


def write_note(path: Path, data: bytes) -> None:
    """A small file in a held folder, in place of what had its name. Raises OSError."""
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, _NOTE_MODE), "wb") as file:  # noqa: PTH123  (a descriptor)
        file.write(data)


def read_note(path: Path) -> bytes | None:
    """What `write_note` wrote; None where it is not there, or something else is."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(fd, "rb") as file:  # noqa: PTH123  (a descriptor)
        return file.read(NOTE_BYTES_MAX)


def _open(path: Path) -> int:
    fd = _descriptor_of(path)
    try:
        return os.open(path, _FLAGS) if fd is None else os.dup(fd)
    except OSError as error:
        raise _fault(path, error) from None


def _step(fd: int, name: str, path: Path, mode: int | None) -> int:
    """The folder `name` in `fd`, which is closed where that is there."""
    try:
        if mode is not None:
            with suppress(FileExistsError):
                os.mkdir(name, mode, dir_fd=fd)
        there = os.open(name, _FLAGS, dir_fd=fd)
    except OSError as error:
        raise _fault(path, error) from None
    os.close(fd)
    return there


def _named_by(fd: int) -> Path:
    return Path("/proc/self/fd") / str(fd)


def _descriptor_of(path: Path) -> int | None:
    return int(path.name) if path.parent == Path("/proc/self/fd") and path.name.isdecimal() else None


def _fault(path: Path, error: OSError) -> StoreError:
    if error.errno in _LINK_CODES:
        cause = f"{_shown(path)} is a symbolic link or no folder at all, and the store follows none"
        return StoreError(cause, "put a folder there, or name the folder itself in `store.dir`")
    return disk_fault(f"the folder {_shown(path)} cannot be used", error)


def _shown(path: Path) -> str:
    """A path that a person knows, also of one below a held folder."""
    for held in path.parents:
        if _descriptor_of(held) is not None:
            with suppress(OSError):
                return str(held.readlink() / path.relative_to(held))
    return str(path)
