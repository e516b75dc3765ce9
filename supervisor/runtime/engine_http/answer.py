"""The whole answer to a control request, bounded, collected from a stream."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from supervisor.runtime.engine_http.errors import EngineHttpError, ProtocolFaultError

BODY_BYTES_MAX = 4_194_304


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers with lower-case names, and the complete body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Collector:
    """A sink whose `answer` is resolved once. A body above the bound is a protocol fault."""

    def __init__(self, answer: "asyncio.Future[Answer]", body_bytes_max: int) -> None:
        self._answer = answer
        self._body_bytes_max = body_bytes_max
        self._status = 0
        self._headers: Mapping[str, str] = {}
        self._body = bytearray()

    def on_status(self, status: int, headers: Mapping[str, str]) -> None:
        """Note it."""
        self._status, self._headers = status, headers

    def on_body(self, data: bytes) -> None:
        """Gather it."""
        if len(self._body) + len(data) > self._body_bytes_max:
            self.on_lost(ProtocolFaultError(f"the answer exceeds {self._body_bytes_max} bytes"))
        elif not self._answer.done():
            self._body += data

    def on_done(self) -> None:
        """Resolve."""
        if not self._answer.done():
            self._answer.set_result(Answer(self._status, self._headers, bytes(self._body)))

    def on_lost(self, error: EngineHttpError) -> None:
        """Reject."""
        if not self._answer.done():
            self._answer.set_exception(error)
