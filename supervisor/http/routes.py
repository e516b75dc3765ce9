"""The table of routes: what the router answers and what `/openapi.json` says, written once.

A path has at most one `{id}`. The control socket serves every route; TCP serves those that are not `SOCKET_ONLY`.
"""

import re

from supervisor.core.refusals import Refused
from supervisor.http.bodies import invalid
from supervisor.http.parse_errors import ALLOW_ALL
from supervisor.http.route import Reach, Route
from supervisor.http.routes_control import CONTROL_ROUTES
from supervisor.http.routes_data import DATA_ROUTES
from supervisor.wire.codes import Reason

IDENT_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_IDENT = re.compile(IDENT_PATTERN)
_IDENT_AT = 3
"""`{id}` is the third segment of every path that has one."""

ROUTES = (*DATA_ROUTES, *CONTROL_ROUTES)


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
