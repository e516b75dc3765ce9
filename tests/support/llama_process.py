"""A llama.cpp server as a child of a test: started by a launch plan, asked over HTTP, ended by signals."""

import http.client
import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from adapters.base import EngineRequest, ExitExplanation, LaunchPlan, Liveness, StopPlan
from adapters.llamacpp import LlamaCpp
from tests.support.waiting import wait_until

ANSWER_S = 30.0
READY_S = 60.0
EXIT_S = 30.0
TAIL_BYTES = 64 * 1024
PORTS = (20_000, 32_768)


def free_port() -> int:
    """A port that was free a moment ago, below those that the kernel hands out, so that nobody gets it by chance."""
    while True:
        port = random.SystemRandom().randrange(*PORTS)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port


class Process:
    """One server. Leaving the block kills what is left of it."""

    def __init__(self, plan: LaunchPlan, port: int, folder: Path) -> None:
        self.port = port
        self.log = folder / f"engine-{port}.log"
        self._key = plan.env["LLAMA_API_KEY"]
        with self.log.open("wb") as output:
            self.child = subprocess.Popen(
                plan.argv,
                env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **plan.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait(EXIT_S)

    def ask(self, request: EngineRequest, *, key: str | None = None) -> tuple[int, bytes]:
        """Status and body."""
        connection = self._sent(request, key or self._key)
        try:
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    @contextmanager
    def opened(self, request: EngineRequest) -> Iterator[http.client.HTTPResponse]:
        """The answer as it comes; leaving the block closes the connection."""
        connection = self._sent(request, self._key)
        try:
            yield connection.getresponse()
        finally:
            connection.close()

    def _sent(self, request: EngineRequest, key: str) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        headers = {**dict(request.headers), "Authorization": f"Bearer {key}"}
        connection.request(request.method, request.path, request.body or None, headers)
        return connection

    def wait_ready(self) -> None:
        """Until it serves; an exit meanwhile is a failure with its output."""
        wait_until(self._is_ready, within_s=READY_S, what="the server's readiness")

    def wait_stoppable(self) -> None:
        """Until SIGTERM is caught: llama-server does so a moment after it is ready, and until then just dies of it."""
        self.wait_ready()
        wait_until(self._catches_sigterm, what="the handler of SIGTERM")

    def _catches_sigterm(self) -> bool:
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        caught = next(line.split()[1] for line in status.split("\n") if line.startswith("SigCgt:"))
        return bool(int(caught, 16) & (1 << (signal.SIGTERM - 1)))

    def _is_ready(self) -> bool:
        assert self.child.poll() is None, self.tail()
        try:
            status, body = self.ask(LlamaCpp().request_health())
        except OSError:
            return False
        return LlamaCpp().read_health(status, body) is Liveness.READY

    def stop(self, plan: StopPlan) -> list[int]:
        """Carry out a stop plan and give the signals that it took."""
        sent: list[int] = []
        for number, wait_s in plan.steps:
            os.killpg(self.child.pid, number)
            sent.append(number)
            try:
                self.child.wait(wait_s)
            except subprocess.TimeoutExpired:
                continue
            break
        return sent

    def tail(self) -> str:
        """The end of its output."""
        return self.log.read_bytes()[-TAIL_BYTES:].decode("utf-8", "replace")

    def explained(self) -> ExitExplanation:
        """The adapter's explanation, once it has ended."""
        return LlamaCpp().explain_exit(self.child.wait(EXIT_S), self.tail())


def read_some(response: http.client.HTTPResponse) -> bytes:
    """What has come, empty at the end of the connection, whether the body was complete or not."""
    try:
        return response.read1(65_536)
    except (http.client.IncompleteRead, ConnectionError):
        return b""
