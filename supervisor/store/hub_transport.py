"""What the answers of a hub's API may be: plain, few, and no trouble that would be waited out. Raises StoreError.

The hub's library asks again by itself, for as long as the hub tells it to sleep, follows any number of pages, and
unpacks what is packed without a bound. So trouble ends the asking here, before the library sees it.
"""

import httpx2

from supervisor.store.faults import Kind, StoreError
from supervisor.store.fetching import retry_after_s

REQUESTS_MAX = 64
"""Of one look into a repository. A page lists a thousand files on the public hub, and ten thousand are the most."""


class HubTransport(httpx2.BaseTransport):
    """Around the transport that judges where it leads. One look into a repository has one of its own."""

    def __init__(self, inner: httpx2.BaseTransport) -> None:
        self._inner = inner
        self._asked = 0

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Ask, and judge the head of the answer."""
        self._asked += 1
        host = request.url.host
        if self._asked > REQUESTS_MAX:
            raise StoreError(f"{host} answers in more than {REQUESTS_MAX} pages", "name another repository")
        request.headers["Accept-Encoding"] = "identity"
        try:
            response = self._inner.handle_request(request)
        except httpx2.TransportError as error:
            raise unreachable(host, error) from None
        if (fault := _fault_of(host, response)) is not None:
            response.close()
            raise fault
        return response

    def close(self) -> None:
        """End every connection."""
        self._inner.close()


def unreachable(host: str, error: httpx2.TransportError) -> StoreError:
    """A line that is not there, or is no more."""
    cause = f"{host} is not reachable or broke off ({type(error).__name__})"
    return StoreError(cause, "try the same again later", Kind.LATER)


def _fault_of(host: str, response: httpx2.Response) -> StoreError | None:
    status = response.status_code
    if status == 429 or status >= 500:
        wait_s = retry_after_s(response.headers.get("Retry-After"))
        later = f" in {wait_s:.0f} s" if wait_s else " later"
        return StoreError(f"{host} answers {status}", f"try the same again{later}", Kind.LATER)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return StoreError(f"{host} packs its answers though it was asked not to", "check `hub.endpoint`")
    return None
