"""What the daemon tells systemd (sd_notify) and what systemd asks of it. Without systemd everything here does nothing.

The protocol is one datagram per message to the socket named in NOTIFY_SOCKET, as sd_notify(3) describes it.
"""

import contextlib
import os
import socket
from collections.abc import Mapping

READY = "READY=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"
STATUS_CHARS_MAX = 200


class Notifier:
    """Sends to the service manager. Never blocks and never raises: a lost message is a late one."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        name = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self._socket: socket.socket | None = None
        if self._address[:1] in {"/", "\0"}:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def send(self, *messages: str) -> bool:
        """Send e.g. `READY` and `status("…")` as one datagram; whether it was taken."""
        if self._socket is None:
            return False
        with contextlib.suppress(OSError):
            self._socket.sendto("\n".join(messages).encode(), self._address)
            return True
        return False

    def close(self) -> None:
        """Send no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def status(text: str) -> str:
    """The message that sets the line shown by `systemctl status`."""
    return "STATUS=" + " ".join(text.split())[:STATUS_CHARS_MAX]


def watchdog_interval_s(environ: Mapping[str, str], *, pid: int | None = None) -> float | None:
    """Seconds between two `WATCHDOG` messages, half of what systemd allows; None where it does not watch us."""
    usec = environ.get("WATCHDOG_USEC", "")
    watched = environ.get("WATCHDOG_PID", "")
    is_ours = not watched or watched == str(os.getpid() if pid is None else pid)
    if not (is_ours and usec.isascii() and usec.isdigit() and int(usec)):
        return None
    return int(usec) / 2_000_000
