"""The client against real sockets: whole answers, streams, keep-alive, and every way in which an engine goes away."""

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from adapters.base import EngineRequest
from supervisor.runtime.engine_http import (
    EngineHttp,
    EngineHttpError,
    EngineLostError,
    EngineTimeoutError,
    EngineUnreachableError,
    ProtocolFaultError,
)
from supervisor.runtime.engine_http.encode import encode_request
from tests.runtime.scripted_engine import HEAD, LAST_CHUNK, Peer, Script, answer, chunk, scripted_engine
from tests.support.waiting import until

BOTH_LOOPS = True

GET = EngineRequest("GET", "/health")
POST = EngineRequest("POST", "/completion", (("Content-Type", "application/json"),), b'{"a":1}')
LONG_S = 20.0


class Listener:
    """A StreamSink that remembers; `over` is set by the end, `fed` holds the bodies as they come."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.body = b""
        self.error: EngineHttpError | None = None
        self.over = asyncio.Event()
        self.fed = asyncio.Event()

    def on_status(self, status: int, headers: Mapping[str, str]) -> None:
        self.heard.append(f"status {status}")

    def on_body(self, data: bytes) -> None:
        assert data
        self.body += data
        self.fed.set()

    def on_done(self) -> None:
        self.heard.append("done")
        self.over.set()

    def on_lost(self, error: EngineHttpError) -> None:
        self.heard.append("lost")
        self.error = error
        self.over.set()


def serving(*answers: bytes) -> Script:
    """Gives the answers in turn on each connection, then waits for the client to leave."""

    async def script(peer: Peer) -> None:
        for one in answers:
            await peer.request()
            await peer.send(one)
        await peer.wait_gone()

    return script


def test_request_holds_only_what_the_adapter_and_http_need() -> None:
    raw = encode_request(POST, "127.0.0.1:8080", "s3cret")

    assert raw == (
        b"POST /completion HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAuthorization: Bearer s3cret\r\nAccept: */*\r\n"
        b'Content-Type: application/json\r\nContent-Length: 7\r\n\r\n{"a":1}'
    )


@pytest.mark.parametrize(
    "request_",
    [
        EngineRequest("GET", "/a b"),
        EngineRequest("GET", "health"),
        EngineRequest("GET", "/\r\nX: 1"),
        EngineRequest("G T", "/"),
        EngineRequest("GET", "/", (("X", "a\r\nY: b"),)),
        EngineRequest("GET", "/", (("X:", "a"),)),
        EngineRequest("GET", "/", (("Host", "elsewhere"),)),
        EngineRequest("GET", "/", (("authorization", "Bearer x"),)),
    ],
)
def test_request_that_would_break_the_header_block_is_refused(request_: EngineRequest) -> None:
    with pytest.raises(ValueError, match=r"engine request|adapter"):
        encode_request(request_, "h", None)


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


async def test_body_until_close_is_done_at_fin() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nabc")

    async with scripted_engine(script) as engine:
        assert (await EngineHttp("127.0.0.1", engine.port, None).request(GET, LONG_S)).body == b"abc"


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
