"""Keep-alive: which connection is used again, which is replaced, and when a request is sent a second time."""

import asyncio
import socket

import pytest

from supervisor.runtime.engine_http import (
    EngineHttp,
    EngineLostError,
)
from tests.runtime.engine_clients import GET, LONG_S, POST, Listener, serving
from tests.runtime.scripted_engine import Peer, answer, scripted_engine
from tests.support.waiting import until

BOTH_LOOPS = True


async def test_garbage_after_the_response_ends_the_connection_not_the_answer() -> None:
    async with scripted_engine(serving(answer(b"good") + b"HTTP/1.1 200 OK\r\n")) as engine:
        http = EngineHttp("127.0.0.1", engine.port, None)

        assert (await http.request(GET, LONG_S)).body == b"good"
        assert http.idle_connections == 0


async def test_connection_that_the_engine_wants_closed_is_not_kept() -> None:
    async with scripted_engine(serving(answer(b"x", extra="Connection: close\r\n"))) as engine:
        http = EngineHttp("127.0.0.1", engine.port, None)

        await http.request(GET, LONG_S)
        await http.request(GET, LONG_S)

        assert engine.connections == 2


async def test_stale_connection_is_replaced_once_without_the_caller_noticing() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"%d" % peer.number))
        if peer.number == 1:
            await peer.request()
            peer.reset()
        await peer.wait_gone()

    async with scripted_engine(script) as engine:
        http = EngineHttp("127.0.0.1", engine.port, None)

        bodies = [(await http.request(POST, LONG_S)).body for _ in range(2)]

        assert bodies == [b"1", b"2"]
        http.close()


async def test_second_loss_is_not_tried_again() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number == 1:
            await peer.send(answer(b"1"))
            await peer.request()

    async with scripted_engine(script) as engine:
        http = EngineHttp("127.0.0.1", engine.port, None)
        await http.request(POST, LONG_S)

        with pytest.raises(EngineLostError):
            await http.request(POST, LONG_S)

        assert engine.connections == 2


async def test_request_is_not_sent_again_after_a_byte_of_the_answer() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"1"))
        await peer.request()
        await peer.send(b"H")

    async with scripted_engine(script) as engine:
        http = EngineHttp("127.0.0.1", engine.port, None)
        await http.request(POST, LONG_S)

        with pytest.raises(EngineLostError):
            await http.request(POST, LONG_S)

        assert engine.connections == 1


async def test_engine_that_dies_of_a_request_on_an_old_connection_is_lost_and_not_unreachable() -> None:
    dead = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"1"))
        await dead.wait()
        peer.reset()

    async with scripted_engine(script) as engine:
        http = EngineHttp("127.0.0.1", engine.port, None)
        await http.request(POST, LONG_S)
        listener = Listener()
        http._port = unused_port()
        http.stream(POST, listener)
        dead.set()
        await listener.over.wait()

        assert isinstance(listener.error, EngineLostError)


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_idle_connection_that_the_engine_closes_is_dropped() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"x"))
        if peer.number > 1:
            await peer.wait_gone()

    async with scripted_engine(script) as engine:
        http = EngineHttp("127.0.0.1", engine.port, None)
        await http.request(GET, LONG_S)
        await until(lambda: not http.connections)

        await http.request(GET, LONG_S)

        assert (engine.connections, http.idle_connections) == (2, 1)
        http.close()


async def test_idle_connection_is_closed_before_the_engine_would() -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"x"))
        await peer.wait_gone()
        gone.set()

    async with scripted_engine(script) as engine:
        http = EngineHttp("127.0.0.1", engine.port, None, idle_s=0.01)
        await http.request(GET, LONG_S)

        await gone.wait()

        assert http.idle_connections == 0
