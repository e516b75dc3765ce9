"""One request on its way through the edge, and what every handler may use. Decides nothing."""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, cast

from aiohttp import StreamReader, web
from aiohttp.web_protocol import RequestPayloadError
from msgspec import Struct
from multidict import istr

from supervisor.core.refusals import Refused
from supervisor.http import translate
from supervisor.http.auth import Gate
from supervisor.http.bodies import invalid
from supervisor.http.connection import Connection
from supervisor.http.limits import Limits
from supervisor.http.service import Caller, Service
from supervisor.wire.codes import Reason

CONTENT_TYPE = istr("Content-Type")
CONTENT_ENCODING = istr("Content-Encoding")
_JSON_TYPE = re.compile(r'application/json[ \t]*(;[ \t]*charset[ \t]*=[ \t]*"?utf-8"?[ \t]*)?', re.IGNORECASE)


class LongAnswer(Protocol):
    """A response that lasts: a stream of tokens or a followed log."""

    def end(self) -> None:
        """Finish the response now, whatever was still to come."""


@dataclass(slots=True)
class Edge:
    """What all requests share. `headers` stand in every response."""

    service: Service
    limits: Limits
    gate: Gate
    headers: Mapping[str, str]
    document: bytes = b""
    """`/openapi.json` of this listener."""
    keyed_document: bytes = b""
    """The same while a key is asked for."""
    long_answers: set[LongAnswer] = field(default_factory=set)
    door: asyncio.Event | None = None
    """Until it is set only `/healthz` is answered: after an upgrade the others wait for the workers."""
    is_closing: bool = False
    is_leaving: bool = False
    """The daemon replaces itself soon: a connection that ends with its answer is never cut in a request."""


@dataclass(slots=True)
class Call:
    """One request. `ident` is the `{id}` of its path, `headers` what its response must carry."""

    request: web.BaseRequest
    edge: Edge
    headers: Mapping[str, str]
    correlation_id: str
    caller: Caller
    ident: str

    @property
    def connection(self) -> Connection:
        """The connection that the request came on."""
        return cast("Connection", self.request.protocol)

    @property
    def service(self) -> Service:
        """The daemon."""
        return self.edge.service

    def reply(self, answer: Struct, status: int = 200, extra: Mapping[str, str] | None = None) -> web.Response:
        """A JSON answer."""
        return translate.reply(answer, self.headers, status, extra)

    def answer(self, answer: Struct | Refused, status: int = 200) -> web.Response:
        """A JSON answer or the error envelope."""
        return self.refuse(answer) if isinstance(answer, Refused) else self.reply(answer, status)

    async def answer_kept(self, answer: Struct | Refused, status: int = 200) -> web.Response:
        """The same to an operator, once what was asked for is on disk: what is said to be done outlives a crash."""
        await self.service.wishes_stored()
        return self.answer(answer, status)

    def refuse(self, refused: Refused) -> web.Response:
        """The error envelope."""
        return translate.refuse(refused, self.headers, self.correlation_id)

    @contextmanager
    def long_answer(self, answer: LongAnswer, on_lost: Callable[[], None]) -> Iterator[None]:
        """While inside, the daemon's stop ends `answer`, and `on_lost` is called when the client leaves."""
        self.edge.long_answers.add(answer)
        self.connection.on_lost = on_lost
        try:
            yield
        finally:
            self.edge.long_answers.discard(answer)
            self.connection.on_lost = None

    async def read_body(self) -> bytes | Refused:
        """The whole JSON body within its bounds in bytes and in time. Raises ConnectionError where the caller left."""
        refused = self._refusal_by_headers()
        if refused is not None:
            return refused
        content = self.request.content
        if content.is_eof():
            return content.read_nowait()
        if self.request.headers.get("Expect", "").lower() == "100-continue" and self.request.transport is not None:
            self.request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            async with asyncio.timeout(self.edge.limits.body_s):
                return await self._gather(content)
        except TimeoutError:
            return invalid(f"The body was not complete within {self.edge.limits.body_s:g} s.", Reason.TIMEOUT)
        except RequestPayloadError:
            return invalid("The body is not framed as HTTP/1.1 asks.", Reason.FIELD)
        except RuntimeError as error:  # aiohttp's word for a client that left before it was read on
            if self.connection.connected:
                raise
            raise ConnectionResetError("the client left") from error

    def _refusal_by_headers(self) -> Refused | None:
        headers = self.request.headers
        if headers.get(CONTENT_ENCODING, "identity").lower() != "identity":
            return invalid("Compressed bodies are not taken.", Reason.MEDIA_TYPE)
        kind = headers.get(CONTENT_TYPE, "")
        if kind != translate.JSON and not _JSON_TYPE.fullmatch(kind):
            return invalid("The Content-Type of the body must be application/json in UTF-8.", Reason.MEDIA_TYPE)
        if (self.request.content_length or 0) > self.edge.limits.body_bytes_max:
            return self._too_large()
        return None

    async def _gather(self, content: StreamReader) -> bytes | Refused:
        body = bytearray()
        while chunk := await content.readany():
            body += chunk
            if len(body) > self.edge.limits.body_bytes_max:
                return self._too_large()
        return bytes(body)

    def _too_large(self) -> Refused:
        return invalid(f"The body is larger than {self.edge.limits.body_bytes_max} bytes.", Reason.BODY_TOO_LARGE)


def int_query(call: Call, name: str, default: int, least: int, most: int) -> int | Refused:
    """A whole number out of the query string, once and in its bounds."""
    texts = call.request.query.getall(name, [])
    if not texts:
        return default
    text = texts[0]
    # Programs on the way disagree on which of two counts.
    if len(texts) == 1 and text.isascii() and text.isdigit() and len(text) <= 18 and least <= int(text) <= most:
        return int(text)
    return invalid(f"The query parameter {name} must be a whole number from {least} to {most}.", Reason.FIELD)


def bool_query(call: Call, name: str) -> bool | Refused:
    """`true` or `false` out of the query string; absent is false."""
    texts = call.request.query.getall(name, ["false"])
    if texts in (["true"], ["false"]):
        return texts == ["true"]
    return invalid(f"The query parameter {name} must be true or false.", Reason.FIELD)
