"""The control socket as a file: claimed only where nobody else's thing lies, given up only where it is still ours.

Never follows a link and never removes anything but a socket that nobody answers on.
"""

import contextlib
import os
import socket
import stat
from pathlib import Path

PATH_BYTES_MAX = 107
"""`sun_path` holds 108 bytes with its closing NUL."""
MODE = 0o660
PARENT_MODE = 0o750
BACKLOG = 128


class ListenError(Exception):
    """The daemon cannot listen where it should; one sentence for the operator."""


class ControlSocket:
    """A bound, listening Unix socket and the file it made."""

    def __init__(self, sock: socket.socket, path: Path) -> None:
        self.sock = sock
        self.path = path
        found = path.lstat()
        self.gid = found.st_gid
        self._identity = _identity(found)

    def remove(self) -> None:
        """Remove the file, unless another daemon has put its own there since."""
        with contextlib.suppress(FileNotFoundError):
            if _identity(self.path.lstat()) == self._identity:
                self.path.unlink()


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    """Which file it is. Numbers of inodes are used again at once, so its birth counts too; no chmod moves that."""
    return found.st_dev, found.st_ino, found.st_mtime_ns


def claim(path: Path) -> ControlSocket:
    """Bind and listen at `path`, mode 0660, making its directory (0750) where missing. Raises `ListenError`."""
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        raise ListenError(f"the path of the control socket is longer than {PATH_BYTES_MAX} bytes: {path}")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if not path.parent.exists():
            path.parent.mkdir(mode=PARENT_MODE, parents=True)
        _clear(path)
        sock.bind(os.fspath(path))
        # Nobody can connect between bind and listen, so the mode is in place before the first caller.
        path.chmod(MODE)
        sock.listen(BACKLOG)
        sock.settimeout(0)
        return ControlSocket(sock, path)
    except OSError as error:
        sock.close()
        raise ListenError(f"cannot listen on the control socket {path}: {error.strerror}") from error
    except ListenError:
        sock.close()
        raise


def _clear(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"something that is not a socket is in the way of the control socket: {path}")
    if _is_answered(path):
        raise ListenError(f"another daemon answers on the control socket {path}")
    path.unlink()


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:  # its backlog is full: somebody is there
            return True
    return True
