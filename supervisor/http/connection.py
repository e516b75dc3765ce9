"""One client connection: aiohttp's protocol with the deadlines and bounds that no HTTP server has by itself.

1. A header block must be complete `header_s` after its first byte, a new connection's after accept, and not be larger
   than `header_bytes_max`.
2. The framing of one body, chunk sizes and extensions, must not be larger than `framing_bytes_max`.
3. A write buffer that stays full for `write_stall_s`, or is not empty that long after the end, aborts the connection.
It parses nothing and knows no route: requests go to the handler that the server was made with.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError

from supervisor.core.refusals import Refused
from supervisor.http import translate
from supervisor.http.auth import Peer, peer_of
from supervisor.http.bodies import invalid
from supervisor.http.limits import Limits
from supervisor.http.parse_errors import headers_too_large, parse_refusal
from supervisor.wire.codes import Code, Reason

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""struct linger: on, 0 s (socket(7))."""
_log = logging.getLogger(__name__)


class NoAccessLog(AbstractAccessLogger):
    """One line per request is the business of who runs a proxy; refusals are logged where they are decided."""

    enabled = False

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Never called: not enabled."""


class Connection(RequestHandler):
    """Keeps only what aiohttp does not: how long the present header block takes, and who sits at the other end."""

    __slots__ = (
        "_framing_bytes",
        "_header_bytes",
        "_header_timer",
        "_is_tls",
        "_limits",
        "_payload",
        "_stall_timer",
        "is_cut",
        "on_lost",
        "peer",
    )

    def __init__(self, server: web.Server, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=limits.keepalive_s,
            access_log_class=NoAccessLog,
            logger=_log,
            max_line_size=limits.url_bytes_max,
            max_field_size=limits.header_bytes_max,
            max_headers=limits.header_count_max,
            lingering_time=limits.linger_s,
            read_bufsize=64 * 1024,
            auto_decompress=False,
        )
        self._limits = limits
        self._framing_bytes = 0
        self._header_bytes = 0
        self._header_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._is_tls = False
        self._payload: StreamReader = EMPTY_PAYLOAD
        self.on_lost: Callable[[], None] | None = None
        """Called once when the connection is gone, by whoever would otherwise not notice: a waiting stream."""
        self.peer: Peer | None = None
        self.is_cut = False
        """Nothing after the present request can be read: its body is not framed as HTTP asks."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that the connection lives on."""
        return self._loop

    @property
    def is_idle(self) -> bool:
        """No request is being answered or waits for it."""
        return self._waiter is not None and not self._waiter.done() and not self._messages

    @property
    def is_unheard(self) -> bool:
        """Its first request has not come yet: who just connected has a right to an answer."""
        return self._request_count == 0 and self.connected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound what may be buffered, and give the first request its deadline."""
        super().connection_made(transport)
        real = cast("asyncio.Transport", transport)
        real.set_write_buffer_limits(self._limits.write_high_bytes, self._limits.write_low_bytes)
        self._is_tls = transport.get_extra_info("sslcontext") is not None
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family == socket.AF_UNIX:
            self.peer = peer_of(sock)
        self._arm_header_deadline()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the clocks and tell who waits."""
        super().connection_lost(exc)
        self._disarm_header_deadline()
        self._cancel_stall()
        if self.on_lost is not None:
            self.on_lost()
            self.on_lost = None

    def data_received(self, data: bytes) -> None:
        """Feed the parser, then see where it stands: in a body, or in a header block that must end soon."""
        seen = self._request_count
        was_in_body = not self._payload.is_eof()
        body_bytes = self._payload.total_bytes
        super().data_received(data)
        if self._request_count != seen:
            self._on_requests(was_in_body=was_in_body)
        elif was_in_body:
            self._on_more_body(len(data) - (self._payload.total_bytes - body_bytes))
        elif data and not self._close and not self._force_close:
            self._on_partial_header(len(data))

    def _on_requests(self, *, was_in_body: bool) -> None:
        """Whole header blocks came, or an error that aiohttp queues like a request."""
        self._disarm_header_deadline()
        self._header_bytes = self._framing_bytes = 0
        message, payload = self._messages[-1]
        if isinstance(message, RawRequestMessage):
            self._payload = payload
        elif was_in_body and not self._payload.is_eof():
            # aiohttp leaves the handler waiting for the rest of a body whose chunks cannot be read any more.
            self._messages.pop()
            self._cut_body()

    def _on_more_body(self, framing_bytes: int) -> None:
        self._framing_bytes += framing_bytes
        if self._framing_bytes > self._limits.framing_bytes_max and not self._payload.is_eof():
            self._cut_body()

    def _cut_body(self) -> None:
        """Tell the handler, which answers; nothing that still comes is looked at."""
        self.is_cut = True
        self._payload.set_exception(RequestPayloadError("bad framing"))
        self.close()

    def _on_partial_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self._limits.header_bytes_max:
            self._give_up(headers_too_large(self._limits))
        elif self._header_timer is None:
            self._arm_header_deadline()

    def _arm_header_deadline(self) -> None:
        self._header_timer = self._loop.call_later(self._limits.header_s, self._on_header_deadline)

    def _disarm_header_deadline(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _on_header_deadline(self) -> None:
        self._header_timer = None
        if self._header_bytes:
            message = f"The header block was not complete within {self._limits.header_s:g} s."
            self._give_up(invalid(message, Reason.TIMEOUT))
        else:
            self.force_close()

    def _give_up(self, refused: Refused) -> None:
        """End a connection on which no whole request arrived; what came before it is still answered."""
        if self.is_idle:
            self.refuse(refused)
        else:
            self.close()

    def refuse(self, refused: Refused) -> None:
        """Answer without a request; what still comes is swallowed, as a close at once would reset the answer away."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(translate.raw_refusal(refused))
            self._half_close(self.transport)
            self.close()
            self._loop.call_later(self._limits.linger_s, self.force_close)

    @staticmethod
    def _half_close(transport: asyncio.Transport) -> None:
        if transport.can_write_eof():  # TLS has no half-closed state
            transport.write_eof()

    async def see_off(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Answer a request that was cut, and swallow what still comes, as in `refuse`, until the client leaves."""
        gone = asyncio.Event()
        self.on_lost = gone.set
        response.force_close()
        await response.prepare(request)
        await response.write_eof()
        self.stop_reading()
        if self.transport is not None:
            self._half_close(self.transport)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.linger_s):
                    await gone.wait()

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ANN401  (aiohttp's signature)
        """A body that is cut after its answer ends in an exception inside aiohttp; that is no failure of ours."""
        if not self.is_cut:
            super().log_exception(*args, **kw)

    def stop_reading(self) -> None:
        """Don't wait for the rest of the present body before closing."""
        self._lingering_time = 0.0

    async def start(self) -> None:
        """Answer requests until the connection ends, which includes what is still in the write buffer."""
        transport = self.transport
        await super().start()
        self._abort_if_stuck(transport)

    def force_close(self) -> None:
        """Close now; what is in the write buffer still has `write_stall_s`."""
        transport = self.transport
        super().force_close()
        self._abort_if_stuck(transport)

    def pause_writing(self) -> None:
        """The write buffer is full."""
        super().pause_writing()
        if self.transport is not None:
            self._watch(self.transport)

    def resume_writing(self) -> None:
        """The client takes bytes again."""
        super().resume_writing()
        self._cancel_stall()

    def _abort_if_stuck(self, transport: asyncio.Transport | None) -> None:
        if transport is None or self._is_tls or self._stall_timer is not None:
            return  # TLS has a deadline of its own for its goodbye, and once closed it cannot be asked
        if transport.get_write_buffer_size():
            self._watch(transport)

    def _watch(self, transport: asyncio.Transport) -> None:
        self._cancel_stall()
        self._stall_timer = self._loop.call_later(self._limits.write_stall_s, self._cut_off, transport)

    @staticmethod
    def _cut_off(transport: asyncio.Transport) -> None:
        """A reset and no goodbye: else the kernel would hold what nobody reads for minutes, for every such client."""
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()

    def _cancel_stall(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  (aiohttp's text quotes the request, so it is never sent)
    ) -> web.StreamResponse:
        """What aiohttp's parser could not take, in the envelope. The connection closes."""
        if isinstance(exc, ConnectionError):
            raise exc
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun")
        refused, extra = parse_refusal(exc, self._limits)
        if status >= 500:
            _log.error("a request handler failed", exc_info=exc)
            refused, extra = Refused(code=Code.INTERNAL, message="The daemon failed to answer."), {}
        correlation_id = translate.correlation_of(request.headers.get("X-Correlation-Id"))
        base = {"Server": translate.SERVER, "X-Correlation-Id": correlation_id, "Connection": "close"}
        response = translate.refuse(refused, base, correlation_id, extra)
        response.force_close()
        return response
