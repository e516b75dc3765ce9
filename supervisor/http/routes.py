"""The table of routes: what the router answers and what `/openapi.json` says, written once.

A path has at most one `{id}`. The control socket serves every route; TCP serves those that are not `SOCKET_ONLY`.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

from aiohttp import web
from msgspec import Struct

from supervisor.core.refusals import Refused
from supervisor.http import control, public, sessions, sse
from supervisor.http.bodies import invalid
from supervisor.http.call import Call
from supervisor.http.parse_errors import ALLOW_ALL
from supervisor.wire.codes import Reason, Scope
from supervisor.wire.pools import DrainRequest, HostStatus, PoolChange, PoolHealth, ReplicaSetPage
from supervisor.wire.sessions import SessionPage, SessionView
from supervisor.wire.tasks import Accepted, SubmitTask, TaskPage, TaskView

Handler = Callable[[Call], Awaitable[web.StreamResponse]]
EVENT_STREAM = "text/event-stream"
TEXT = "text/plain"
IDENT_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_IDENT = re.compile(IDENT_PATTERN)
_IDENT_AT = 3
"""`{id}` is the third segment of every path that has one."""


class Reach(StrEnum):
    """Where a route is served."""

    EVERYWHERE = "everywhere"
    SOCKET_ONLY = "socket_only"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter in the query string or a header that has a meaning. `most` may be the name of one of the limits."""

    name: str
    where: str
    kind: str
    description: str
    least: int | None = None
    most: int | str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """One row. `refusals` are the statuses that this route adds to those that every route can give.

    `scopes`: a caller needs one of them (ORCH-3035). There is no default: who adds a route says who may use it.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    status: int = 200
    request: type[Struct] | None = None
    reply: type[Struct] | None = None
    media_type: str = "application/json"
    refusals: tuple[int, ...] = ()
    reply_headers: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    reach: Reach = Reach.EVERYWHERE
    scopes: frozenset[Scope] = field(kw_only=True)

    @property
    def is_audited(self) -> bool:
        """It changes something that is not the caller's own: each use is a line in the log."""
        return self.method != "GET" and self.scopes == CONTROL

    @property
    def has_head(self) -> bool:
        """HEAD is answered where the answer has a length."""
        return self.method == "GET" and self.media_type not in {EVENT_STREAM, TEXT}


DATA = frozenset({Scope.DATA})
CONTROL = frozenset({Scope.CONTROL})
METRICS = frozenset({Scope.METRICS})
ANY = frozenset(Scope)
_BODY = (400, 408, 413, 415)
_LIMIT = Parameter("limit", "query", "integer", "How many at most.", 1, "tasks_page_max")
_LINES = Parameter("lines", "query", "integer", "How many of the last lines.", 0, "log_lines_max")
_FOLLOW = Parameter("follow", "query", "boolean", "Whether to go on with what comes after.")
_LAST_EVENT = Parameter(
    "Last-Event-ID",
    "header",
    "integer",
    "Replay starts after the frame with this id.",
    0,
    10**sse.EVENT_ID_DIGITS_MAX - 1,
)

ROUTES = (
    Route(
        "POST",
        "/v1/tasks",
        public.submit,
        "Submit a task; it is on disk when the answer comes.",
        202,
        SubmitTask,
        Accepted,
        refusals=(*_BODY, 409, 429, 503),
        reply_headers=("X-Queue-Position", "X-Queue-ETA-Ms"),
        scopes=DATA,
    ),
    Route(
        "GET",
        "/v1/tasks",
        public.list_tasks,
        "The caller's tasks, newest first.",
        reply=TaskPage,
        refusals=(400,),
        parameters=(_LIMIT,),
        scopes=DATA,
    ),
    Route("GET", "/v1/tasks/{id}", public.show_task, "One task.", reply=TaskView, refusals=(410,), scopes=DATA),
    Route(
        "GET",
        "/v1/tasks/{id}/stream",
        sse.stream,
        "The frames of a task, as server-sent events.",
        media_type=EVENT_STREAM,
        refusals=(400, 410, 503),
        parameters=(_LAST_EVENT,),
        scopes=DATA,
    ),
    Route(
        "POST",
        "/v1/tasks/{id}/cancel",
        public.cancel,
        "Cancel a task; harmless on a finished one.",
        204,
        refusals=(410, 503),
        reply_headers=("X-Tokens-Emitted",),
        scopes=DATA,
    ),
    Route(
        "GET",
        "/v1/sessions",
        sessions.list_sessions,
        "The caller's sessions, last used first.",
        reply=SessionPage,
        refusals=(400,),
        parameters=(_LIMIT,),
        scopes=DATA,
    ),
    Route("GET", "/v1/sessions/{id}", sessions.show_session, "One session.", reply=SessionView, scopes=DATA),
    Route(
        "DELETE",
        "/v1/sessions/{id}",
        sessions.delete_session,
        "End a session and evict its KV; harmless on one that was deleted.",
        204,
        scopes=DATA,
    ),
    Route(
        "GET",
        "/v1/pools/{id}/health",
        public.pool_health,
        "One pool and its figures.",
        reply=PoolHealth,
        scopes=DATA,
    ),
    Route(
        "POST",
        "/v1/pools/{id}/drain",
        control.drain,
        "Dispatch nothing more to a pool.",
        202,
        DrainRequest,
        PoolChange,
        refusals=(*_BODY, 503),
        scopes=CONTROL,
    ),
    Route(
        "POST",
        "/v1/pools/{id}/resume",
        control.resume,
        "Undo a drain.",
        202,
        reply=PoolChange,
        refusals=(503,),
        scopes=CONTROL,
    ),
    Route(
        "GET",
        "/v1/pools/{id}/logs",
        control.logs,
        "The output of a pool's engine.",
        media_type=TEXT,
        refusals=(400, 503),
        parameters=(_LINES, _FOLLOW),
        reach=Reach.SOCKET_ONLY,
        scopes=CONTROL,
    ),
    Route(
        "GET",
        "/v1/replicasets",
        public.replica_sets,
        "Replica sets and their load.",
        reply=ReplicaSetPage,
        scopes=DATA,
    ),
    Route(
        "GET",
        "/v1/status",
        control.status,
        "The whole host.",
        reply=HostStatus,
        reach=Reach.SOCKET_ONLY,
        scopes=CONTROL,
    ),
    Route("GET", "/healthz", public.live, "Whether the daemon lives.", reply=public.Probe, scopes=ANY),
    Route("GET", "/readyz", public.ready, "Whether a pool can serve.", reply=public.Probe, refusals=(503,), scopes=ANY),
    Route(
        "GET",
        "/metrics",
        public.metrics,
        "Prometheus metrics.",
        media_type="text/plain; version=0.0.4",
        scopes=METRICS,
    ),
    Route("GET", "/openapi.json", public.openapi, "This document.", scopes=ANY),
)


def routes_on_tcp() -> tuple[Route, ...]:
    """What the world may ask."""
    return tuple(route for route in ROUTES if route.reach is Reach.EVERYWHERE)


class Router:
    """Finds the route of a request by its raw path: nothing is decoded, so `%2e` and `..` never mean anything."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self.routes = routes
        self._by_path: dict[str, dict[str, Route]] = {}
        for route in routes:
            methods = self._by_path.setdefault(route.path, {})
            methods[route.method] = route
            if route.has_head:
                methods["HEAD"] = route

    def match(self, method: str, path: str) -> tuple[Route, str] | Refused:
        """The route and the value of its `{id}`, or INVALID_PARAMS with reason not_found or method."""
        ident, methods = self._methods(path)
        if not methods and method != "CONNECT":
            return invalid("There is no such resource.", Reason.NOT_FOUND)
        route = methods.get(method)
        return (route, ident) if route is not None else invalid("This method is not served here.", Reason.METHOD)

    def allowed(self, path: str) -> str:
        """The value of the Allow header; for no path of ours, as in CONNECT, the methods that exist at all."""
        return ", ".join(sorted(self._methods(path)[1])) or ALLOW_ALL

    def _methods(self, path: str) -> tuple[str, dict[str, Route]]:
        found = self._by_path.get(path)
        if found is not None and "{" not in path:
            return "", found
        segments = path.split("/")
        if len(segments) <= _IDENT_AT or not _IDENT.fullmatch(segments[_IDENT_AT]):
            return "", {}
        ident, segments[_IDENT_AT] = segments[_IDENT_AT], "{id}"
        return ident, self._by_path.get("/".join(segments), {})
