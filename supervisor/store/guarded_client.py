"""An HTTP client that connects only to where `Reach` lets it. Loads the HTTP library: import it where it is needed.

The address that was judged is the one that is connected to: a name that changes its address in between gains nothing.
There is no proxy, no netrc and no cookie: nothing of the environment but the certificates that OpenSSL trusts.
"""

import ssl
from collections.abc import Iterator

import httpx2

from supervisor.store.faults import StoreError
from supervisor.store.hub_transport import HubTransport
from supervisor.store.reach import Reach, Target

CONNECT_S = 10.0
READ_S = 30.0
REDIRECTS_MAX = 5
API_BYTES_MAX = 32 * 1024 * 1024


class _BoundedStream(httpx2.SyncByteStream):
    """A body that is cut off with an error where it grows too large."""

    def __init__(self, stream: httpx2.SyncByteStream, bytes_max: int) -> None:
        self._stream = stream
        self._left = bytes_max

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._left -= len(chunk)
            if self._left < 0:
                raise StoreError(f"the hub answers with more than {API_BYTES_MAX} bytes")
            yield chunk

    def close(self) -> None:
        self._stream.close()


class GuardedTransport(httpx2.BaseTransport):
    """One inner transport for each origin, so that a connection made for one name never serves another."""

    def __init__(self, reach: Reach, body_bytes_max: int | None) -> None:
        self._reach = reach
        self._body_bytes_max = body_bytes_max
        self._inner: dict[Target, httpx2.HTTPTransport] = {}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Judge, connect to a judged address, answer. Raises StoreError and the library's transport errors."""
        url = request.url
        target = Target(url.scheme, url.host.lower(), url.port or {"https": 443}.get(url.scheme, 80))
        addresses = self._reach.addresses(target)
        if target not in self._inner:
            self._inner[target] = httpx2.HTTPTransport(verify=ssl.create_default_context(), trust_env=False)
        response = self._send(request, self._inner[target], addresses)
        if response.has_redirect_location:
            return _without_body(response)
        if self._body_bytes_max is not None and isinstance(response.stream, httpx2.SyncByteStream):
            response.stream = _BoundedStream(response.stream, self._body_bytes_max)
        return response

    @staticmethod
    def _send(request: httpx2.Request, inner: httpx2.HTTPTransport, addresses: tuple[str, ...]) -> httpx2.Response:
        last: httpx2.ConnectError | None = None
        for address in addresses:
            extensions = {**request.extensions, "sni_hostname": request.url.host}
            pinned = httpx2.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=request.headers,
                stream=request.stream,
                extensions=extensions,
            )
            try:
                return inner.handle_request(pinned)
            except httpx2.ConnectError as error:
                last = error
        assert last is not None, "a name that resolves has an address"
        raise last

    def close(self) -> None:
        """End every connection."""
        for inner in self._inner.values():
            inner.close()


def _without_body(response: httpx2.Response) -> httpx2.Response:
    """A redirect by its place alone: the library would read all of a body that nobody wants, and unpack it."""
    response.close()
    return httpx2.Response(response.status_code, headers={"Location": response.headers["Location"]}, content=b"")


def make_client(reach: Reach, *, is_for_api: bool) -> httpx2.Client:
    """A client for one look into the hub's API, whose answers are small, or for files."""
    transport = HubTransport(GuardedTransport(reach, API_BYTES_MAX)) if is_for_api else GuardedTransport(reach, None)
    return httpx2.Client(
        transport=transport,
        trust_env=False,
        follow_redirects=True,
        max_redirects=REDIRECTS_MAX,
        timeout=httpx2.Timeout(READ_S, connect=CONNECT_S),
    )
