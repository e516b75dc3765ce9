"""A client that sends exactly the bytes it is told and reads HTTP/1.1 responses strictly. For tests of the edge."""

import asyncio
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ANSWER_S = 10.0
"""A response that takes longer is a failure, not a reason to wait."""


@dataclass(frozen=True)
class Answer:
    """One response. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


class RawClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def tcp(cls, port: int, *, receive_buffer_bytes: int | None = None) -> Self:
        sock = socket.socket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # each piece is to arrive as a piece
        if receive_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        # A small limit, so that a test that does not read makes the kernel's buffers full soon.
        return cls(*await asyncio.open_connection(sock=sock, limit=64 * 1024))

    @classmethod
    async def over(cls, sock: socket.socket) -> Self:
        """On a socket that is connected already."""
        sock.setblocking(False)
        return cls(*await asyncio.open_connection(sock=sock))

    @classmethod
    async def unix(cls, path: Path) -> Self:
        return cls(*await asyncio.open_unix_connection(path))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reset()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def stop_reading(self) -> None:
        """Leave everything in the kernel's buffers."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport can

    def go_on_reading(self) -> None:
        """After `stop_reading`."""
        self.writer.transport.resume_reading()  # type: ignore[attr-defined]  # a socket's transport can

    def reset(self) -> None:
        """Gone at once; with unread data the peer sees a reset."""
        self.writer.transport.abort()

    async def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """One ordinary request and its response."""
        self.send(request(method, path, body, headers))
        return await self.answer(has_body=method != "HEAD")

    async def answer(self, *, has_body: bool = True) -> Answer:
        """The next response, whole."""
        async with asyncio.timeout(ANSWER_S):
            status, headers = await self.head()
            if status in {100, 204} or not has_body:
                return Answer(status, headers, b"")
            if headers.get("transfer-encoding") == "chunked":
                return Answer(status, headers, b"".join([chunk async for chunk in self.chunks()]))
            if "content-length" in headers:
                return Answer(status, headers, await self.reader.readexactly(int(headers["content-length"])))
            return Answer(status, headers, await self.reader.read())

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status line and headers of the next response."""
        block = (await self.reader.readuntil(b"\r\n\r\n")).decode("ascii")
        first, *lines = block.removesuffix("\r\n\r\n").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version in {"HTTP/1.1", "HTTP/1.0"}, first
        pairs = [line.split(": ", 1) for line in lines]
        assert len({name.lower() for name, _ in pairs}) == len(pairs), f"a header came twice: {lines}"
        return int(status), {name.lower(): value for name, value in pairs}

    async def chunk(self) -> bytes:
        """The next chunk; empty for the last one."""
        async with asyncio.timeout(ANSWER_S):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
            return data

    async def chunks(self) -> Any:
        while data := await self.chunk():
            yield data

    async def closed(self) -> bytes:
        """What still comes before the server closes. A reset counts as closed."""
        async with asyncio.timeout(ANSWER_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


def request(method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
    """The bytes of an ordinary request; JSON by default. A header set to "" is left out."""
    fields = {"Host": "test"}
    if body is not None:
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    fields |= headers or {}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value)]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")
