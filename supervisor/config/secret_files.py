"""Files that hold secrets: opened without trusting them, replaced whole, edited by one process at a time.

Decides whom a secret may belong to and who may read it. Knows nothing of what is in it. Standard library only, as the
CLI needs it.
"""

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FILE_MODE = 0o600
DIR_MODE = 0o700
LOCK_WITHIN_S = 5.0
_LOCK_POLL_S = 0.02
_OTHERS_ANY = 0o077
_OTHERS_WRITE = 0o022
# systemd grants a credential with an access list, whose mask then shows as the rights of the group.
_CREDENTIAL_MODES = (0o400, 0o440)
# O_NONBLOCK: opening a FIFO would else wait for a writer. O_NOCTTY: a terminal must not become the controlling one.
_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class SecretFileError(Exception):
    """A file cannot be trusted or used. One sentence without a full stop, with the way out where there is one."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What is accepted of one file. `credentials_dir` is systemd's folder of credentials, where there is one."""

    bytes_max: int
    is_link_followed: bool = False
    is_folder_checked: bool = True
    credentials_dir: Path | None = None


@contextlib.contextmanager
def open_secret(path: Path, trust: Trust) -> Iterator[int]:
    """A descriptor of a secret that passed every check. Raises SecretFileError, FileNotFoundError; never waits.

    1. a link is not followed, unless `is_link_followed`; 2. it is a regular file; 3. it belongs to this user or to
    root; root also takes one of the folder's owner; 4. nobody else may read it; 5. nobody else may write to its folder;
    6. it is not larger than `bytes_max`.
    """
    try:
        fd = os.open(path, _OPEN_FLAGS | (0 if trust.is_link_followed else os.O_NOFOLLOW))
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            raise SecretFileError(f"{path} is a symbolic link, which is not followed; name the file itself") from error
        raise SecretFileError(f"{path} cannot be opened: {error.strerror}") from error
    except ValueError as error:
        raise SecretFileError(f"{path!s:.100} is not a usable path") from error
    try:
        with _readable(path):
            _check(path, os.fstat(fd), trust)
        yield fd
    finally:
        with contextlib.suppress(OSError):  # nothing was written
            os.close(fd)


def read_secret(path: Path, trust: Trust) -> bytes:
    """The bytes of a secret that passed every check. Raises as `open_secret`."""
    with open_secret(path, trust) as fd:
        parts: list[bytes] = []
        missing = trust.bytes_max + 1
        with _readable(path):
            while missing and (part := os.read(fd, missing)):
                parts.append(part)
                missing -= len(part)
    if not missing:  # it has grown since it was checked
        raise SecretFileError(f"{path} is larger than {trust.bytes_max} bytes")
    return b"".join(parts)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """A disk or a file server that fails is a SecretFileError too."""
    try:
        yield
    except OSError as error:
        raise SecretFileError(f"{path} cannot be read: {error.strerror}") from error


def _check(path: Path, found: os.stat_result, trust: Trust) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise SecretFileError(f"{path} is not a regular file")
    folder = path.parent.stat()
    owners = {os.geteuid(), 0} | ({folder.st_uid} if os.geteuid() == 0 else set())
    if found.st_uid not in owners:
        raise SecretFileError(f"{path} belongs to user {found.st_uid}, not to user {os.geteuid()}; run: chown it")
    mode = stat.S_IMODE(found.st_mode)
    is_credential = trust.credentials_dir is not None and path.parent == trust.credentials_dir
    if mode & _OTHERS_ANY and not (is_credential and mode in _CREDENTIAL_MODES):
        raise SecretFileError(f"others may read {path} (mode {mode:04o}); run: chmod 600 {path}")
    if trust.is_folder_checked and folder.st_mode & _OTHERS_WRITE:
        raise SecretFileError(f"others may write to the folder {path.parent}; run: chmod go-w {path.parent}")
    if found.st_size > trust.bytes_max:
        raise SecretFileError(f"{path} is larger than {trust.bytes_max} bytes")


@contextlib.contextmanager
def editing(path: Path) -> Iterator[None]:
    """Keep other editors of the file away while inside. Makes its folder (0700) where missing. Raises SecretFileError.

    The lock is on the folder, so that nothing is left behind and root and the daemon's user exclude each other.
    """
    try:
        path.parent.mkdir(mode=DIR_MODE, parents=True, exist_ok=True)
        fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SecretFileError(f"the folder {path.parent} cannot be used: {error.strerror}") from error
    try:
        _lock(fd, path)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, path: Path) -> None:
    give_up_s = time.monotonic() + LOCK_WITHIN_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= give_up_s:
                raise SecretFileError(f"somebody else edits {path}; try again") from None
            time.sleep(_LOCK_POLL_S)


def replace_secret(path: Path, data: bytes) -> None:
    """Put `data` at `path` with mode 0600, whole or not at all, also over a crash. Raises SecretFileError.

    To be called inside `editing`. Of root's edit the owner is that of the former file, else of the folder.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        with open(fd, "wb") as file:  # noqa: PTH123  (a descriptor, not a path)
            os.fchmod(fd, FILE_MODE)
            if os.geteuid() == 0:
                owner = path.lstat() if path.exists() else path.parent.stat()
                os.fchown(fd, owner.st_uid, owner.st_gid)
            file.write(data)
            file.flush()
            os.fsync(fd)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise SecretFileError(f"{path} cannot be written: {error.strerror}") from error


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
