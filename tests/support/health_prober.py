"""Asks a daemon for its health all the while, one connection a look, as a load balancer does."""

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator

from tests.support.daemon import Daemon

HEALTH_WITHIN_S = 1.0
LOOK_EVERY_S = 0.1
GIVE_UP_S = 30.0


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
            began, process = time.monotonic(), self._daemon.process
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._ask()
            took = time.monotonic() - began
            is_alive = process is not None and process is self._daemon.process and process.poll() is None
            if is_alive and not self._pause.is_set():
                self.slowest_s = max(self.slowest_s, took)
                self.slow += [took] if took > HEALTH_WITHIN_S else []

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._daemon.port, timeout=GIVE_UP_S)
        with contextlib.closing(connection):
            connection.request("GET", "/healthz")
            connection.getresponse().read()
