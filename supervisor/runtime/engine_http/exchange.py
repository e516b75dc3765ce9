"""One request and its answer: who is told, what carries it at the moment, and whether it may be sent a second time.

Exactly one of `on_done` and `on_lost` is called, unless `abort` or `drain` comes first: then nothing more is.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from supervisor.runtime.engine_http.errors import EngineHttpError, EngineLostError, EngineUnreachableError

DRAIN_S = 1.0


class StreamSink(Protocol):
    """Who wants the answer. Called on the event loop, in the callback that read the bytes; may abort the exchange."""

    def on_status(self, status: int, headers: Mapping[str, str]) -> None:
        """The header block is whole; names are lower case."""

    def on_body(self, data: bytes) -> None:
        """A piece of the body, never empty: all of it that one read brought."""

    def on_done(self) -> None:
        """The response is complete as HTTP. Whether the answer is, only its own protocol can say."""

    def on_lost(self, error: EngineHttpError) -> None:
        """There will be no more of it."""


class _Nobody:
    """Takes the rest of an answer that has served its purpose."""

    def on_status(self, status: int, headers: Mapping[str, str]) -> None:
        pass

    def on_body(self, data: bytes) -> None:
        pass

    def on_done(self) -> None:
        pass

    def on_lost(self, error: EngineHttpError) -> None:
        pass


_NOBODY = _Nobody()


class Exchange:
    """Handle of a running request. `release` lets go of what carries it: a connection, or the attempt at one."""

    __slots__ = ("_drain_timer", "_release", "_retry", "_was_retried", "is_over", "payload", "sink")

    def __init__(self, payload: bytes, sink: StreamSink, retry: "Callable[[Exchange], None]") -> None:
        self.payload = payload
        self.sink = sink
        self.is_over = False
        self._retry = retry
        self._was_retried = False
        self._release: Callable[[], object] | None = None
        self._drain_timer: asyncio.TimerHandle | None = None

    def carried_by(self, release: Callable[[], object]) -> None:
        """Something else carries it from now on."""
        self._release = release

    def abort(self) -> None:
        """Close the connection at once, which is how an engine learns of a cancel. The sink hears nothing more."""
        if not self.is_over:
            self._end()
            if self._release is not None:
                self._release()
            self._forget()

    def drain(self) -> None:
        """The answer is known. Read what HTTP still owes, for `DRAIN_S` at most, to use the connection again."""
        self.sink = _NOBODY
        if not self.is_over and self._drain_timer is None:
            self._drain_timer = asyncio.get_running_loop().call_later(DRAIN_S, self.abort)

    def done(self) -> None:
        """From the connection: the response is complete."""
        if not self.is_over:
            self._end()
            sink = self._forget()
            sink.on_done()

    def lost(self, error: EngineHttpError, *, is_stale: bool = False) -> None:
        """From what carries it. `is_stale`: a reused connection ended before a single byte of the answer.

        Such a request is sent once more, on a fresh connection: the engine most likely closed the idle connection
        without reading it, and if it did read it, closing has cancelled it and nothing of it was streamed. Should the
        engine be gone by then, it is *lost* and not unreachable: the request may be what killed it.
        """
        if self.is_over:
            return
        if is_stale:  # once at most: the second try rides on a connection that was never used before
            self._was_retried = True
            self._retry(self)
            return
        if self._was_retried and isinstance(error, EngineUnreachableError):
            error = EngineLostError("the engine closed the connection and then could not be reached")
        self._end()
        sink = self._forget()
        sink.on_lost(error)

    def _end(self) -> None:
        self.is_over = True
        if self._drain_timer is not None:
            self._drain_timer.cancel()

    def _forget(self) -> StreamSink:
        """Drop the references that would keep a finished request's memory."""
        sink, self.sink, self.payload, self._release = self.sink, _NOBODY, b"", None
        return sink
