"""The connections of one listener, bounded: the oldest one without a request in progress makes room for a newcomer.

Where all are busy the newcomer is refused.
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
_TOO_MANY = Refused(
    code=Code.ADMISSION_REJECT, reason=Reason.RATE_LIMIT, message="Too many connections are open.", retry_after_ms=1000
)


class Connections(web.Server):
    """The connections of one listener, bounded."""

    def __init__(self, handler: Handler, limits: Limits, connections_max: int) -> None:
        super().__init__(handler)
        self._limits = limits
        self._connections_max = connections_max

    def __call__(self) -> Connection:
        """A protocol for a new connection."""
        return Connection(self, self._limits, self._loop)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Count the newcomer, and make room for it or refuse it."""
        super().connection_made(handler, transport)
        if len(self._connections) <= self._connections_max:
            return
        others = (one for one in self._connections if isinstance(one, Connection) and one is not handler)
        oldest = next((one for one in others if one.is_idle), None)
        if oldest is not None:
            oldest.force_close()
        elif isinstance(handler, Connection):
            self._loop.call_soon(handler.refuse, _TOO_MANY)
