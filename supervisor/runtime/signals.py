"""The signals that stop the daemon or make it read its files anew: held back in every thread, read in one place.

What is held back in all threads of a process stays pending until it is read, over an exec too: whatever comes while one
image of the daemon gives way to the next is the next one's, however late it comes. A thread inherits what it holds back
from the one that starts it, threads of libraries too, and so `hold_signals` comes before any of them. A child would
inherit it as well: see `signals_let_through`. What a signal means is not decided here.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import struct
import threading
from collections.abc import Callable, Iterator
from types import FrameType

MEANINGLESS = frozenset({signal.SIGUSR1, signal.SIGUSR2})
"""Nothing is asked for by these. Left alone they would end the daemon."""
HELD_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP}) | MEANINGLESS
_SIGSET_BYTES = 128
"""`sigset_t` of glibc and of musl."""
_INFO_BYTES = 128
"""`struct signalfd_siginfo`, which begins with the number."""


def hold_signals() -> None:
    """For the main thread and all that it starts from now on. They are not lost: see `SignalReader`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
    for number in HELD_SIGNALS:
        signal.signal(number, _pass_on)


def _pass_on(number: int, _: FrameType | None) -> None:
    """One that reached a thread which lets them through: it waits for the main thread like the others."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, number)


@contextlib.contextmanager
def signals_let_through() -> Iterator[None]:
    """In a side thread, only while it starts a child: what the child holds back is what this thread does."""
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class SignalReader:
    """Tells `on_signal` of each one, in the event loop, until `close`; those that come later stay pending."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_signal: Callable[[int], None]) -> None:
        """Raises OSError: the process may not have another descriptor."""
        self._loop = loop
        self._on_signal = on_signal
        self._fd: int | None = _open_descriptor()
        loop.add_reader(self._fd, self._read, self._fd)

    def _read(self, fd: int) -> None:
        """One only: what its meaning changes may concern the next."""
        with contextlib.suppress(BlockingIOError):
            (number,) = struct.unpack_from("=I", os.read(fd, _INFO_BYTES))
            self._on_signal(number)

    def close(self) -> None:
        """Read no more. Idempotent."""
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None


def _open_descriptor() -> int:
    """A descriptor of signalfd(2), which Python does not have. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    held = ctypes.create_string_buffer(_SIGSET_BYTES)
    libc.sigemptyset(held)
    for number in HELD_SIGNALS:
        libc.sigaddset(held, int(number))
    fd = int(libc.signalfd(-1, held, os.O_CLOEXEC | os.O_NONBLOCK))  # SFD_CLOEXEC and SFD_NONBLOCK are the same numbers
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd
