"""What an error of aiohttp's parser means to the client. Its own text quotes the request, so it is never passed on."""

from aiohttp.http_exceptions import BadHttpMethod, LineTooLong

from supervisor.core.refusals import Refused
from supervisor.http.bodies import invalid
from supervisor.http.limits import Limits
from supervisor.wire.codes import Reason

ALLOW_ALL = "GET, HEAD, POST"
NO_HTTP = invalid("The request is not valid HTTP/1.1.", Reason.FIELD)
_TLS = "HTTPS"
"""In the message of the one BadHttpMethod that is about no method: a TLS handshake on a plain port."""


def parse_refusal(exc: BaseException | None, limits: Limits) -> tuple[Refused, dict[str, str]]:
    """The refusal of a request that could not be parsed, and the headers that go with it."""
    if isinstance(exc, LineTooLong):
        # The limit is the one thing that tells a long URL from a long header.
        if exc.args[1] == limits.url_bytes_max:
            return invalid(f"The URL is longer than {limits.url_bytes_max} bytes.", Reason.URL_TOO_LONG), {}
        return headers_too_large(limits), {}
    if exc is not None and "Too many headers" in str(exc):
        return headers_too_large(limits), {}
    if isinstance(exc, BadHttpMethod) and _TLS not in exc.message:
        return invalid("The request method is not known.", Reason.METHOD), {"Allow": ALLOW_ALL}
    return NO_HTTP, {}


def headers_too_large(limits: Limits) -> Refused:
    """431."""
    message = f"The header block has more than {limits.header_bytes_max} bytes or {limits.header_count_max} fields."
    return invalid(message, Reason.HEADERS_TOO_LARGE)
