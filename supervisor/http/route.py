"""What one route is: what the router answers, and what `/openapi.json` says of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

from aiohttp import web
from msgspec import Struct

from supervisor.http.call import Call
from supervisor.wire.codes import Scope

Handler = Callable[[Call], Awaitable[web.StreamResponse]]
EVENT_STREAM = "text/event-stream"
TEXT = "text/plain"


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
BODY_REFUSALS = (400, 408, 413, 415)
