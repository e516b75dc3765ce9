"""The connections of one listener, bounded: the oldest one without a request in progress makes room for a newcomer.

Where all are busy the newcomer is refused. Over TLS, one in its handshake counts too, and is the first to make room.
"""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from supervisor.core.refusals import Refused
from supervisor.http.connection import Connection
from supervisor.http.limits import Limits
from supervisor.wire.codes import Code, Reason

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
NEWCOMER_LOOK_S = 0.005
_TOO_MANY = Refused(
    code=Code.ADMISSION_REJECT, reason=Reason.RATE_LIMIT, message="Too many connections are open.", retry_after_ms=1000
)


class Connections(web.Server):
    """The connections of one listener, bounded."""

    def __init__(self, handler: Handler, limits: Limits, connections_max: int) -> None:
        super().__init__(handler)
        self._limits = limits
        self._connections_max = connections_max
        self._handshakes: dict[RequestHandler, Callable[[], None]] = {}

    def __call__(self) -> Connection:
        """A protocol for a new connection."""
        return Connection(self, self._limits, self._loop)

    @property
    def count(self) -> int:
        """Connections that are open now, with those in their handshake."""
        return len(self._connections) + len(self._handshakes)

    def begin(self, newcomer: Connection, hang_up: Callable[[], None]) -> None:
        """Count a connection whose handshake begins, and make room for it. `hang_up` ends the handshake.

        Where all others are busy it goes on: its client is told so once it can read it.
        """
        oldest = next(iter(self._handshakes), None)
        self._handshakes[newcomer] = hang_up
        if self.count <= self._connections_max:
            return
        if oldest is not None:
            self._handshakes.pop(oldest)()
        else:
            self._close_oldest_idle(newcomer)

    def settle(self, newcomer: RequestHandler) -> None:
        """The handshake is over, however it ended."""
        self._handshakes.pop(newcomer, None)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Count the newcomer, and make room for it or refuse it."""
        self.settle(handler)
        super().connection_made(handler, transport)
        if len(self._connections) <= self._connections_max:
            return
        if not self._close_oldest_idle(handler) and isinstance(handler, Connection):
            self._loop.call_soon(handler.refuse, _TOO_MANY)

    async def hear_newcomers(self, within_s: float) -> None:
        """Wait, not for long, until those who just connected have asked: no other daemon can answer them."""
        until_s = self._loop.time() + within_s
        while self._loop.time() < until_s and any(  # noqa: ASYNC110  (an event would cost every connection one)
            one.is_unheard for one in self._connections if isinstance(one, Connection)
        ):
            await asyncio.sleep(NEWCOMER_LOOK_S)

    def _close_oldest_idle(self, newcomer: RequestHandler) -> bool:
        """Whether there was one."""
        others = (one for one in self._connections if isinstance(one, Connection) and one is not newcomer)
        oldest = next((one for one in others if one.is_idle), None)
        if oldest is None:
            return False
        oldest.force_close()
        return True
