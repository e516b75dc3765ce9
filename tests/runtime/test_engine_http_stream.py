"""Streams through the client: pieces as they come, aborting, draining, and the end of it all."""

import asyncio

import pytest

from supervisor.runtime.engine_http import (
    EngineHttp,
    EngineLostError,
    EngineUnreachableError,
)
from tests.runtime.engine_clients import GET, LONG_S, POST, Listener, serving
from tests.runtime.scripted_engine import HEAD, LAST_CHUNK, Peer, chunk, scripted_engine
from tests.support.waiting import until

BOTH_LOOPS = True


async def test_stream_is_handed_on_piece_by_piece() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + chunk(b"first"))
        await go.wait()
        await peer.send(chunk(b" second") + chunk(b" third") + LAST_CHUNK)
        await peer.wait_gone()

    async with scripted_engine(script) as engine:
        http = EngineHttp("127.0.0.1", engine.port, None)
        listener = Listener()
        http.stream(POST, listener)
        await listener.fed.wait()
        before = listener.body
        go.set()
        await listener.over.wait()

        assert (before, listener.body) == (b"first", b"first second third")
        assert listener.heard == ["status 200", "done"]
        assert http.idle_connections == 1
        http.close()


async def test_body_until_close_is_lost_at_rst() -> None:
    read = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        await read.wait()
        peer.reset()

    async with scripted_engine(script) as engine:
        listener = Listener()
        EngineHttp("127.0.0.1", engine.port, None).stream(GET, listener)
        await listener.fed.wait()
        read.set()
        await listener.over.wait()

        assert listener.heard == ["status 200", "lost"]


async def test_abort_closes_the_connection_and_silences_the_stream() -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + chunk(b"x"))
        await peer.wait_gone()
        gone.set()

    async with scripted_engine(script) as engine:
        listener = Listener()
        exchange = EngineHttp("127.0.0.1", engine.port, None).stream(POST, listener)
        await listener.fed.wait()
        exchange.abort()
        await gone.wait()

        assert listener.heard == ["status 200"]
        assert exchange.is_over


async def test_abort_before_the_connection_is_made() -> None:
    async with scripted_engine(serving()) as engine:
        http = EngineHttp("127.0.0.1", engine.port, None)
        listener = Listener()
        exchange = http.stream(POST, listener)

        exchange.abort()
        await until(lambda: not http.connections)

        assert listener.heard == []


async def test_drained_stream_gives_its_connection_back() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + chunk(b"x"))
        await go.wait()
        await peer.send(chunk(b"more"), LAST_CHUNK)
        await peer.wait_gone()

    async with scripted_engine(script) as engine:
        http = EngineHttp("127.0.0.1", engine.port, None)
        listener = Listener()
        exchange = http.stream(POST, listener)
        await listener.fed.wait()
        exchange.drain()
        go.set()
        await until(lambda: http.idle_connections)

        assert listener.body == b"x"
        assert listener.heard == ["status 200"]
        http.close()


async def test_connections_are_bounded() -> None:
    async with scripted_engine(serving()) as engine:
        http = EngineHttp("127.0.0.1", engine.port, None, connections_max=1)
        waiting, refused = Listener(), Listener()
        http.stream(POST, waiting)
        http.stream(POST, refused)
        await refused.over.wait()

        assert isinstance(refused.error, EngineUnreachableError)
        assert not waiting.over.is_set()
        http.close()


async def test_close_ends_everything_and_tells_the_streams() -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + chunk(b"x"))
        await peer.wait_gone()
        gone.set()

    async with scripted_engine(script) as engine:
        http = EngineHttp("127.0.0.1", engine.port, None)
        listener = Listener()
        http.stream(POST, listener)
        await listener.fed.wait()
        http.close()
        await gone.wait()

        assert isinstance(listener.error, EngineLostError)
        with pytest.raises(EngineUnreachableError):
            await http.request(GET, LONG_S)


async def test_close_while_connecting_leaves_nothing_open() -> None:
    async with scripted_engine(serving()) as engine:
        http = EngineHttp("127.0.0.1", engine.port, None)
        listener = Listener()
        http.stream(POST, listener)
        await until(lambda: http.connections)

        http.close()
        await listener.over.wait()

        assert isinstance(listener.error, EngineLostError)
        await until(lambda: not http.connections)
