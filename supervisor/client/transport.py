"""HTTP to one daemon, over TCP, TLS or its Unix socket. Foreign exceptions are translated here, once.

Decides what kind of failure an answer is, and nothing about what comes after it. Follows no redirect, keeps no cookie.
aiohttp itself sends a GET once more where the connection broke before the answer; it never does so with anything else.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self
from urllib.parse import urlsplit

import aiohttp
import msgspec
from multidict import CIMultiDictProxy
from yarl import URL

from supervisor.client.errors import ApiError, ClientError, NetworkError, ProtocolError, UnreachableError
from supervisor.wire.errors import ErrorEnvelope

REPLY_BYTES_MAX = 64 * 2**20
HINT_DIGITS_MAX = 9
UNIX_SCHEME = "unix:"
_OF_SOMETHING_BETWEEN = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where the daemon is: the start of every URL, and the Unix socket where it is one."""

    base: str
    unix_path: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `http://host:port`, `https://host:port` or `unix:/path`. Raises ValueError for anything else."""
        if text.startswith(UNIX_SCHEME):
            path = text.removeprefix(UNIX_SCHEME)
            if not path:
                raise ValueError("the address of the daemon names no socket")
            return cls("http://localhost", path)
        parts = urlsplit(text)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"the address of a daemon is http://…, https://… or unix:/path, not {text!r}")
        return cls(text.rstrip("/"))


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole successful answer."""

    headers: CIMultiDictProxy[str]
    body: bytes


class Transport:
    """Connections to one daemon, kept and used again. Times are seconds; open it and close it in one event loop."""

    def __init__(
        self, address: Address, headers: Mapping[str, str], tls: ssl.SSLContext | None, connect_s: float
    ) -> None:
        self._address = address
        self._connect_s = connect_s
        self._session = aiohttp.ClientSession(
            connector=_connector(address, tls),
            headers={"Accept-Encoding": "identity", **headers},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def ask(self, method: str, path: str, body: bytes | None, within_s: float) -> Reply:
        """One request and its whole answer. Raises ApiError, NetworkError, ProtocolError."""
        try:
            async with asyncio.timeout(within_s), self.open(method, path, body=body) as response:
                return Reply(response.headers, await _read(response))
        except TimeoutError:
            raise NetworkError(f"no answer within {within_s:g} s", TimeoutError()) from None

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        silence_s: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A successful answer whose body is still to be read. Raises as `ask`; `silence_s` bounds each wait for it."""
        sent = {"Content-Type": "application/json"} if body is not None else {}
        with translated():
            response = await self._session.request(
                method,
                URL(self._address.base + path, encoded=True),
                data=body,
                headers={**sent, **(headers or {})},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_s, sock_read=silence_s),
            )
        try:
            if not HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
                raise _refusal(response, await _read(response))
            yield response
        finally:
            response.release()

    @staticmethod
    async def pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The body as it arrives: nothing is held back to fill a buffer. Raises NetworkError."""
        while True:
            with translated():
                piece = await response.content.readany()
            if not piece:
                return
            yield piece


def _connector(address: Address, tls: ssl.SSLContext | None) -> aiohttp.BaseConnector:
    if address.unix_path is not None:
        return aiohttp.UnixConnector(address.unix_path)
    return aiohttp.TCPConnector(ssl=tls if tls is not None else True)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in Transport.pieces(response):
        body += piece
        if len(body) > REPLY_BYTES_MAX:
            raise ProtocolError(f"the answer is longer than {REPLY_BYTES_MAX} bytes")
    return bytes(body)


def _refusal(response: aiohttp.ClientResponse, body: bytes) -> ClientError:
    """1. the daemon's envelope; 2. a proxy that does not reach it, which may mend; 3. something else altogether."""
    try:
        envelope = msgspec.json.decode(body, type=ErrorEnvelope)
    except (msgspec.DecodeError, UnicodeDecodeError):
        if response.status in _OF_SOMETHING_BETWEEN:
            return NetworkError(f"something between here and the daemon answered {response.status}")
        return ProtocolError(f"an answer with status {response.status} that no daemon gives")
    return ApiError(envelope, response.status, hint_ms(response.headers))


def hint_ms(headers: Mapping[str, str]) -> int | None:
    """When to come back, in milliseconds: X-Backoff-Ms, or Retry-After in whole seconds; None without either."""
    for name, unit_ms in (("X-Backoff-Ms", 1), ("Retry-After", 1_000)):
        text = headers.get(name, "")
        if text.isascii() and text.isdigit() and len(text) <= HINT_DIGITS_MAX:
            return int(text) * unit_ms
    return None


@contextmanager
def translated() -> Iterator[None]:
    """What aiohttp and the operating system raise, as errors of this package."""
    try:
        yield
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
        raise ProtocolError(f"TLS with the daemon is not possible: {error}") from error
    except aiohttp.ClientConnectorError as error:
        raise UnreachableError(f"no daemon answers there: {error.os_error}", error.os_error) from error
    except aiohttp.ConnectionTimeoutError as error:
        raise UnreachableError("the daemon cannot be reached in time", TimeoutError()) from error
    except aiohttp.ClientResponseError as error:
        raise ProtocolError(f"what answers there does not speak HTTP: {error.message}") from error
    except TimeoutError as error:
        raise NetworkError("the daemon has gone silent", TimeoutError()) from error
    except OSError as error:
        raise NetworkError(f"the connection broke: {error.strerror or error}", error) from error
    except aiohttp.ClientError as error:
        raise NetworkError(f"the connection broke: {error}") from error
