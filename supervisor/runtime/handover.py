"""One image of the daemon replaces itself by the next: same pid, same engines, same listening sockets.

The sockets stay open over the exec, and one variable names their descriptors. It is sealed with the pid, so nobody who
merely inherits the environment takes numbers for sockets. Signals that come in between wait: see `signals`. The
configuration in force goes along, for a file that was broken meanwhile must not leave the engines alone.
"""

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import Struct

VARIABLE = "ORCHCTL_HANDOVER"
CONFIG_BYTES_MAX = 4 * 1024 * 1024


class _Sealed(Struct, frozen=True, forbid_unknown_fields=True):
    pid: int
    http: int
    control: int
    control_file: bytes
    config: int | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """What the image before this one left: `control_file` in that image's own words, and the text of its config."""

    http: socket.socket | None
    control: socket.socket | None
    control_file: bytes
    config: str | None = None


@dataclass(frozen=True, slots=True)
class Handover:
    """What the next image gets: descriptors of this process that stay open, and which file the control socket has.

    `config` is a file without a name that holds the text of the configuration in force.
    """

    http: int
    control: int
    control_file: bytes
    config: int

    def replace_process(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        """Become the next image. Comes back only by raising OSError."""
        sealed = _Sealed(os.getpid(), self.http, self.control, self.control_file, self.config)
        for fd in (self.http, self.control, self.config):
            os.set_inheritable(fd, True)  # noqa: FBT003  (the library's signature)
        env = {**environ, VARIABLE: msgspec.json.encode(sealed).decode()}
        os.execve(command[0], list(command), env)  # noqa: S606  (an argv list; no shell is wanted)


def note_config(text: str) -> int:
    """A file without a name that holds this text. Raises OSError."""
    fd = os.memfd_create("orchctl-config")
    with open(os.dup(fd), "wb") as file:  # noqa: PTH123  (a descriptor)
        file.write(text.encode())
    return fd


def take_over(environ: MutableMapping[str, str]) -> Received | None:
    """The sockets of the image before this one; None where there was none. The variable is taken out."""
    text = environ.pop(VARIABLE, None)
    if text is None:
        return None
    try:
        sealed = msgspec.json.decode(text, type=_Sealed)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
    if sealed.pid != os.getpid():
        return None
    http, control = (adopt_listener(fd) for fd in (sealed.http, sealed.control))
    return Received(http, control, sealed.control_file, None if sealed.config is None else _take_text(sealed.config))


def _take_text(fd: int) -> str | None:
    """What is in the file, which is closed; None where it is none."""
    try:
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            file.seek(0)
            return file.read(CONFIG_BYTES_MAX).decode()
    except (OSError, ValueError):
        return None


def adopt_listener(fd: int) -> socket.socket | None:
    """The listening socket behind an inherited descriptor, not inherited further; None where it is not one."""
    with contextlib.suppress(OSError):
        sock = socket.socket(fileno=fd)
        if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.detach()
            return None
        fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        sock.settimeout(0)
        return sock
    return None
