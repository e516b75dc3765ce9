"""The handler of all requests of one listener: who asks, for what, may they; then answer, and never raise."""

import logging
from http import HTTPStatus
from typing import cast

from aiohttp import HttpVersion10, web
from multidict import istr

from supervisor.core.refusals import Refused
from supervisor.http import translate
from supervisor.http.auth import identify_peer, lacks_scope
from supervisor.http.call import Call, Edge
from supervisor.http.connection import Connection
from supervisor.http.parse_errors import NO_HTTP, headers_too_large
from supervisor.http.route import Route
from supervisor.http.routes import Router
from supervisor.http.service import Caller
from supervisor.wire.codes import Code, Reason

CORRELATION = istr("X-Correlation-Id")
LIVE = "/healthz"
_HEADER_EXTRA_BYTES = 4
"""Colon, space, CR and LF of one header line."""
_FAILED = Refused(code=Code.INTERNAL, message="The daemon failed to answer; its log says why.")

_log = logging.getLogger(__name__)


class Dispatcher:
    """What a listener's connections call with each request. `socket_gid` is the control socket's group, None on TCP."""

    def __init__(self, edge: Edge, router: Router, socket_gid: int | None) -> None:
        self._edge = edge
        self._router = router
        self._socket_gid = socket_gid

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. A ConnectionError says that nobody is left to answer."""
        correlation_id = translate.correlation_of(request.headers.get(CORRELATION))
        headers = {**self._edge.headers, "X-Correlation-Id": correlation_id}
        try:
            response = await self._answer(request, headers, correlation_id)
        except ConnectionError:
            raise
        except Exception as error:
            _log.exception("a request handler failed", extra={"correlation_id": correlation_id})
            if request.writer.output_size > 0:
                raise ConnectionResetError("the response had begun") from error
            response = translate.refuse(_FAILED, headers, correlation_id)
        if self._edge.is_leaving:
            response.force_close()
        connection = cast("Connection", request.protocol)
        if connection.is_cut:
            await connection.see_off(request, response)
        elif response.status == HTTPStatus.REQUEST_TIMEOUT:
            connection.stop_reading()
        return response

    async def _answer(
        self, request: web.BaseRequest, headers: dict[str, str], correlation_id: str
    ) -> web.StreamResponse:
        connection = cast("Connection", request.protocol)
        if request.version < HttpVersion10:  # the parser takes `GET /` for HTTP/0.9
            connection.refuse(NO_HTTP)
            raise ConnectionResetError("no HTTP/1")
        caller = self._identify(request, connection)
        if isinstance(caller, Refused):
            return translate.refuse(caller, headers, correlation_id)
        if _header_bytes(request) > self._edge.limits.header_bytes_max:
            return translate.refuse(headers_too_large(self._edge.limits), headers, correlation_id)
        path = request.raw_path.partition("?")[0]
        found = self._router.match(request.method, path)
        if isinstance(found, Refused):
            extra = {"Allow": self._router.allowed(path)} if found.reason is Reason.METHOD else {}
            return translate.refuse(found, headers, correlation_id, extra)
        route, ident = found
        if (refused := lacks_scope(caller, route.scopes)) is not None:
            self._edge.gate.note_denied(caller, request.remote or "", _action(route), correlation_id)
            return translate.refuse(refused, headers, correlation_id)
        if path != LIVE:
            await self._wait_at_door(connection)
        response = await route.handler(Call(request, self._edge, headers, correlation_id, caller, ident))
        if route.is_audited:
            done = (_action(route), ident, response.status, correlation_id)
            self._edge.gate.audit.note_action(caller, request.remote or "", *done)
        return response

    async def _wait_at_door(self, connection: Connection) -> None:
        door = self._edge.door
        if door is not None and not door.is_set():
            await door.wait()
            if not connection.connected:
                raise ConnectionResetError("the client left")

    def _identify(self, request: web.BaseRequest, connection: Connection) -> Caller | Refused:
        if self._socket_gid is not None:
            return identify_peer(connection.peer, self._socket_gid)
        return self._edge.gate.identify(request.headers, request.remote or "")


def _action(route: Route) -> str:
    """The word of the audit trail for a route."""
    return route.handler.__name__


def _header_bytes(request: web.BaseRequest) -> int:
    return sum(len(name) + len(value) + _HEADER_EXTRA_BYTES for name, value in request.raw_headers)
