"""Opens what lies below a folder, and nothing else: no `..`, no absolute name, no symbolic link on the way.

openat2(2) does it in one step (Linux 5.6). Where the kernel or a sandbox has it not, each folder is opened in turn.
"""

import ctypes
import errno
import os
from pathlib import Path

_SYS_OPENAT2 = 437
"""The same number on every architecture: it is younger than the common table of system calls."""

_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_MISSING = (errno.ENOSYS, errno.EPERM)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(root: Path, place: str, *, has_openat2: bool = True) -> int:
    """A descriptor to read `place`, a relative name below `root`, which is taken as it is named. Raises OSError.

    ELOOP stands for a link on the way, EXDEV for a way out of the folder.
    """
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if has_openat2:
            try:
                return _openat2(fd, place)
            except OSError as error:
                if error.errno not in _MISSING:
                    raise
        return _walk(fd, place)
    finally:
        os.close(fd)


def _openat2(root: int, place: str) -> int:
    how = _OpenHow(_FLAGS, 0, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS)
    libc = ctypes.CDLL(None, use_errno=True)
    name = ctypes.c_char_p(os.fsencode(place))
    number, size = ctypes.c_long(_SYS_OPENAT2), ctypes.c_size_t(ctypes.sizeof(how))
    found = int(libc.syscall(number, ctypes.c_int(root), name, ctypes.byref(how), size))
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), place)
    return found


def _walk(root: int, place: str) -> int:
    parts = place.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), place)
    here = os.dup(root)
    try:
        for part in parts[:-1]:
            there = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = there
        return os.open(parts[-1], _FLAGS | os.O_NOFOLLOW, dir_fd=here)
    except NotADirectoryError as error:
        # O_DIRECTORY with O_NOFOLLOW says ENOTDIR of a link; openat2 says ELOOP.
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), place) from error
    finally:
        os.close(here)
