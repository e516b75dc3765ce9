"""Asks a daemon for its health all the while, one connection a look, as a load balancer does.

What counts is the daemon's own time. The kernel says when the question left and when the answer came, so that a test
process that is busy itself adds nothing; and what the daemon waited for a processor, while others had it, is taken off.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.support.daemon import Daemon

HEALTH_WITHIN_S = 1.0
LOOK_EVERY_S = 0.1
GIVE_UP_S = 30.0
_TIMES = struct.Struct("=8x9I3I")
"""The head of struct tcp_info: 8 bytes, 9 words, then when data was last sent, acked and received, in ms."""
_NS_PER_S = 1e9


class HealthProber:
    """A thread. `slow` is every answer of a living daemon that took longer than a second; `slowest_s` the longest."""

    def __init__(self, daemon: Daemon) -> None:
        self.slow: list[float] = []
        self.slowest_s = 0.0
        self._daemon = daemon
        self._over = threading.Event()
        self._pause = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health-prober", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While inside, nobody expects answers."""
        self._pause.set()
        try:
            yield
        finally:
            self._pause.clear()
            self.slow.clear()

    def close(self) -> None:
        """Ask no more; `slow` is complete."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            if self._pause.is_set() or not self._daemon.port:
                continue
            process = self._daemon.process
            waited_s = 0.0 if process is None else waited_for_processor_s(process.pid)
            took = self._ask()
            if process is not None:
                took = max(took - (waited_for_processor_s(process.pid) - waited_s), 0.0)
            is_alive = process is not None and process is self._daemon.process and process.poll() is None
            if is_alive and not self._pause.is_set():
                self.slowest_s = max(self.slowest_s, took)
                self.slow += [took] if took > HEALTH_WITHIN_S else []

    def _ask(self) -> float:
        """Seconds from the question's leaving to the answer's coming, as the kernel saw them; 0 where nobody is."""
        try:
            with socket.create_connection(("127.0.0.1", self._daemon.port), timeout=GIVE_UP_S) as sock:
                sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n")
                if not sock.recv(1):
                    return 0.0
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TIMES.size)
        except TimeoutError:
            return GIVE_UP_S
        except OSError:
            return 0.0
        *_, sent_ms, _, received_ms = _TIMES.unpack(info)
        return float(max(sent_ms - received_ms, 0)) / 1_000


def waited_for_processor_s(pid: int) -> float:
    """How long a process's first thread was ready to run and did not; 0 where the kernel does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / _NS_PER_S
    return 0.0
