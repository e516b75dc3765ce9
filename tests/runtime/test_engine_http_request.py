"""Whole answers on real sockets, and the named error of every other outcome."""

import asyncio
import socket
from pathlib import Path

import pytest

from supervisor.runtime.engine_http import (
    EngineHttp,
    EngineHttpError,
    EngineLostError,
    EngineTimeoutError,
    EngineUnreachableError,
    ProtocolFaultError,
)
from tests.runtime.engine_clients import GET, LONG_S, POST, serving
from tests.runtime.scripted_engine import HEAD, Peer, answer, chunk, scripted_engine

BOTH_LOOPS = True


async def test_answer_is_complete_and_the_connection_is_used_again() -> None:
    async with scripted_engine(serving(answer(b"one"), answer(b"two", "404 Not Found"))) as engine:
        http = EngineHttp("127.0.0.1", engine.port, "key")

        first = await http.request(GET, LONG_S)
        second = await http.request(POST, LONG_S)

        assert (first.status, first.body, first.headers["content-length"]) == (200, b"one", "3")
        assert (second.status, second.body) == (404, b"two")
        assert (engine.connections, http.connections, http.idle_connections) == (1, 1, 1)
        http.close()


async def test_engine_on_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "engine.sock")
    async with scripted_engine(serving(answer(b"hi")), path):
        http = EngineHttp("", 0, None, socket_path=path)

        assert (await http.request(GET, LONG_S)).body == b"hi"
        http.close()


async def test_nodelay_is_set() -> None:
    async with scripted_engine(serving(answer(b"hi"))) as engine:
        http = EngineHttp("127.0.0.1", engine.port, None)
        await http.request(GET, LONG_S)

        (connection,) = http._connections
        assert connection._transport is not None
        sock = connection._transport.get_extra_info("socket")

        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        http.close()


async def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        http = EngineHttp("127.0.0.1", unused.getsockname()[1], None)

        with pytest.raises(EngineUnreachableError):
            await http.request(GET, LONG_S)


async def test_engine_that_never_answers_times_out_and_loses_its_client() -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.wait_gone()
        gone.set()

    async with scripted_engine(script) as engine:
        http = EngineHttp("127.0.0.1", engine.port, None)

        with pytest.raises(EngineTimeoutError):
            await http.request(GET, 0.05)

        await gone.wait()
        assert http.idle_connections == 0


async def test_answer_above_the_bound_is_cut_off() -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + chunk(b"x" * 1001))
        await peer.wait_gone()
        gone.set()

    async with scripted_engine(script) as engine:
        http = EngineHttp("127.0.0.1", engine.port, None)

        with pytest.raises(ProtocolFaultError, match="exceeds 1000 bytes"):
            await http.request(GET, LONG_S, body_bytes_max=1000)

        await gone.wait()
        assert http.idle_connections == 0


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"garbage\r\n", ProtocolFaultError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", EngineLostError),
        (HEAD + chunk(b"data"), EngineLostError),
        (b"", EngineLostError),
    ],
)
@pytest.mark.parametrize("end", ["fin", "half-close", "rst"])
async def test_broken_answers_are_named_errors(raw: bytes, error: type[EngineHttpError], end: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(raw)
        if end == "half-close":
            peer.half_close()
            await peer.wait_gone()
        elif end == "rst":
            peer.reset()

    async with scripted_engine(script) as engine:
        http = EngineHttp("127.0.0.1", engine.port, None)

        with pytest.raises((error, EngineLostError)):
            await http.request(GET, LONG_S)

        assert engine.connections == 1
        assert http.idle_connections == 0


async def test_body_until_close_is_done_at_fin() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nabc")

    async with scripted_engine(script) as engine:
        assert (await EngineHttp("127.0.0.1", engine.port, None).request(GET, LONG_S)).body == b"abc"
