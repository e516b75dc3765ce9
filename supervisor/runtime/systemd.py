"""What the daemon tells systemd (sd_notify) and what systemd asks of it. Without systemd everything here does nothing.

The protocol is one datagram per message to the socket named in NOTIFY_SOCKET, as sd_notify(3) describes it.
"""

import contextlib
import os
import socket
from collections.abc import Mapping, MutableMapping

READY = "READY=1"
RELOADING = "RELOADING=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"
STATUS_CHARS_MAX = 200
EXTEND_S = 60
"""So long the next image may take until it speaks; longer than any read of a journal took."""
FIRST_SOCKET = 3
"""SD_LISTEN_FDS_START."""
SOCKETS_MAX = 16


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


def reloading(now_usec: int) -> tuple[str, str]:
    """The messages that an image sends before the next one takes over; `now_usec` is the monotonic clock."""
    return RELOADING, f"MONOTONIC_USEC={now_usec}"


def extended() -> tuple[str, str]:
    """The messages of an image that cannot speak for a while: it starts the watchdog anew and asks for patience."""
    return WATCHDOG, f"EXTEND_TIMEOUT_USEC={EXTEND_S * 1_000_000}"


def passed_sockets(environ: MutableMapping[str, str], *, pid: int | None = None) -> dict[str, int]:
    """The descriptors of listening sockets that systemd bound for us, by name; sd_listen_fds(3).

    The variables are taken out, as they are nobody else's. A name that comes twice keeps its first descriptor.
    """
    listen_pid, count, names = (environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if listen_pid != str(os.getpid() if pid is None else pid) or not (count.isascii() and count.isdigit()):
        return {}
    given = names.split(":")
    found: dict[str, int] = {}
    for number in range(min(int(count), SOCKETS_MAX)):
        found.setdefault(given[number] if number < len(given) else "", FIRST_SOCKET + number)
    return found


def watchdog_interval_s(environ: Mapping[str, str], *, pid: int | None = None) -> float | None:
    """Seconds between two `WATCHDOG` messages, half of what systemd allows; None where it does not watch us."""
    usec = environ.get("WATCHDOG_USEC", "")
    watched = environ.get("WATCHDOG_PID", "")
    is_ours = not watched or watched == str(os.getpid() if pid is None else pid)
    if not (is_ours and usec.isascii() and usec.isdigit() and int(usec)):
        return None
    return int(usec) / 2_000_000
