"""The control socket as a file: claimed only where nobody else's thing lies, given up only where it is still ours.

Never follows a link and never removes anything but a socket that nobody answers on.
"""

import contextlib
import os
import socket
import stat
from pathlib import Path

from msgspec import Struct

PATH_BYTES_MAX = 107
"""`sun_path` holds 108 bytes with its closing NUL."""
MODE = 0o660
PARENT_MODE = 0o750
BACKLOG = 128


class ListenError(Exception):
    """The daemon cannot listen where it should; one sentence for the operator."""


class SocketFile(Struct, frozen=True):
    """Which file a control socket made, and its group. `is_manager_owned`: systemd made it, and removes it."""

    device: int
    inode: int
    birth_ns: int
    gid: int
    is_manager_owned: bool = False

    @classmethod
    def at(cls, path: Path, *, is_manager_owned: bool = False) -> "SocketFile":
        """What lies at the path now; no link is followed. Raises FileNotFoundError.

        Numbers of inodes are used again at once, so its birth counts too; no chmod moves that.
        """
        found = path.lstat()
        return cls(found.st_dev, found.st_ino, found.st_mtime_ns, found.st_gid, is_manager_owned)

    def is_at(self, path: Path) -> bool:
        """Whether it still lies there."""
        try:
            found = SocketFile.at(path)
        except OSError:
            return False
        return (found.device, found.inode, found.birth_ns) == (self.device, self.inode, self.birth_ns)


class ControlSocket:
    """A bound, listening Unix socket and the file it made."""

    def __init__(self, sock: socket.socket, path: Path, file: SocketFile | None = None) -> None:
        self.sock = sock
        self.path = path
        self.file = file or SocketFile.at(path)
        self.gid = self.file.gid

    @property
    def is_in_place(self) -> bool:
        """Whether whoever opens the path finds this socket."""
        return self.file.is_at(self.path)

    def remove(self) -> None:
        """Remove the file, unless somebody has put another one there since, or systemd owns it."""
        if self.is_in_place and not self.file.is_manager_owned:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()


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
