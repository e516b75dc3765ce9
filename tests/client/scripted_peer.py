"""A server that says exactly the bytes it is told, and breaks where it is told: one act for each connection.

The acts are used up in order; the last one is played again for every connection after it.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

_LINGER_ZERO = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Asked:
    """One request as it came. Header names are lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Act = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class ScriptedPeer:
    """Listens on a free port of the loopback interface; `asked` is every request, whatever was answered."""

    acts: list[Act]
    asked: list[Asked] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._play, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            asked = await _read(reader)
            self.asked.append(asked)
            act = self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]
            await act(asked, writer)
        writer.close()


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return Asked(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))


def says(data: bytes) -> Act:
    """These bytes, and a proper end of the connection."""

    async def act(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return act


def resets(data: bytes = b"") -> Act:
    """These bytes, and then a reset."""

    async def act(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        writer.transport.abort()

    return act


def falls_silent(data: bytes) -> Act:
    """These bytes, and then nothing for as long as the other side stays."""

    async def act(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.wait_closed()

    return act


def answer(status: int, body: bytes, **headers: str) -> bytes:
    """A whole response; `X_Backoff_Ms="5"` is a header."""
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode() + body


def event_stream(body: bytes) -> bytes:
    """A whole chunked response, each frame in a chunk of its own."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    frames = [frame + b"\n\n" for frame in body.split(b"\n\n")[:-1]]
    return head + b"".join(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames) + b"0\r\n\r\n"
