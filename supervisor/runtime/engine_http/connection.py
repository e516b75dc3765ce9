"""One connection to an engine, as an asyncio BufferedProtocol: no buffer is allocated or mapped for a read.

Reads land in a buffer that all connections of a pool share: both asyncio and uvloop fill it and call `buffer_updated`
without a turn of the loop in between, and the parser keeps nothing of it. Its size bounds the work that one stream can
cause in one turn of the loop.
"""

import asyncio
from typing import Protocol, cast

from supervisor.runtime.engine_http.errors import EngineLostError
from supervisor.runtime.engine_http.exchange import Exchange
from supervisor.runtime.engine_http.response import ResponseParser

READ_BYTES_MAX = 65_536


class ConnectionOwner(Protocol):
    """The pool."""

    def connection_freed(self, connection: "Connection") -> None:
        """Its response is complete and another request may follow."""

    def connection_gone(self, connection: "Connection") -> None:
        """It is closed. Called once for each connection that was made."""


class Connection(asyncio.BufferedProtocol):
    """Carries one exchange at a time."""

    __slots__ = ("_buffer", "_exchange", "_has_status", "_is_reused", "_owner", "_parser", "_transport", "idle_since_s")

    def __init__(self, owner: ConnectionOwner, buffer: memoryview) -> None:
        self.idle_since_s = 0.0
        self._owner = owner
        self._buffer = buffer
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._parser = ResponseParser()
        self._has_status = False
        self._is_reused = False

    @property
    def is_usable(self) -> bool:
        """Whether a request may be sent on it now."""
        return self._transport is not None and not self._transport.is_closing() and self._exchange is None

    def send(self, exchange: Exchange) -> None:
        """Write the request in one piece."""
        assert self._transport is not None
        assert self._exchange is None
        self._exchange = exchange
        self._has_status = False
        exchange.carried_by(self.abort)
        self._transport.write(exchange.payload)

    def abort(self) -> None:
        """Close at once; an exchange on it hears nothing."""
        self._exchange = None
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close at once; an exchange on it is told."""
        exchange = self._exchange
        self.abort()
        if exchange is not None:
            exchange.lost(EngineLostError("the client of this engine was closed"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of the loop, which has set TCP_NODELAY: asyncio and uvloop both do for every TCP transport."""
        # uvloop's transports are no subclass of asyncio's, only alike.
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  (asyncio's signature)
        """The shared buffer."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse and hand on, in this very callback."""
        exchange = self._exchange
        if exchange is None:
            self.abort()  # bytes that nobody asked for
            return
        parser = self._parser
        body = parser.feed(self._buffer[:nbytes])
        if not self._has_status and parser.status:
            self._has_status = True
            exchange.sink.on_status(parser.status, parser.headers)
        if body:
            exchange.sink.on_body(body)
        if self._exchange is exchange and (parser.is_complete or parser.fault is not None):
            self._settle(exchange)

    def eof_received(self) -> None:
        """The engine sent FIN: the end of a body until close, a cut for any other. The transport closes itself."""
        exchange = self._exchange
        if exchange is not None:
            self._parser.eof()
            if self._parser.is_complete:
                self._settle(exchange)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (its text may hold addresses)
        """Closed by either side, or by an error."""
        exchange, self._exchange = self._exchange, None
        is_stale = self._is_reused and self._parser.is_untouched
        self._owner.connection_gone(self)
        self._transport = None
        if exchange is not None:
            exchange.lost(EngineLostError("the connection to the engine ended in mid-answer"), is_stale=is_stale)

    def _settle(self, exchange: Exchange) -> None:
        parser, transport = self._parser, self._transport
        assert transport is not None
        self._exchange = None
        if parser.fault is not None:
            transport.abort()
            exchange.lost(parser.fault)
            return
        if parser.is_keep_alive and not parser.has_surplus and not transport.is_closing():
            self._parser = ResponseParser()
            self._is_reused = True
            self._owner.connection_freed(self)
        else:
            transport.abort()
        exchange.done()
