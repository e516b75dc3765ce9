"""Any bytes at all on a connection: each is answered or closed within the bounds, and nothing fails inside."""

import asyncio
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor.http.limits import Limits
from supervisor.http.server import HttpServer
from tests.support.hygiene import assert_clean
from tests.support.memory_service import MemoryService, submit_body
from tests.support.rawhttp import Answer, RawClient, request

TASK_ID = "00000000-0000-4000-8000-000000000001"
BODY = submit_body(task_id=TASK_ID)
POST = b"POST /v1/tasks HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
VALID = [
    request("GET", "/healthz"),
    request("GET", "/v1/tasks?limit=5"),
    request("POST", "/v1/tasks", BODY),
    POST + b"Transfer-Encoding: chunked\r\n\r\n%x;a=b\r\n%b\r\n0\r\nTrailer: x\r\n\r\n" % (len(BODY), BODY),
    POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY),
    request("POST", f"/v1/tasks/{TASK_ID}/cancel"),
    request("GET", f"/v1/tasks/{TASK_ID}/stream", headers={"Last-Event-ID": "1"}),
    request("GET", "/healthz", headers={"Connection": "Upgrade", "Upgrade": "websocket"}),
    b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
]
PIECES = [
    *(b"\r\n", b"\r", b"\n", b"\0", b" ", b"\t", b":", b";", b",", b"\xff", b"\r\n\r\n", b"0\r\n\r\n", b"HTTP/1.1"),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: u\r\n", b"Connection: close\r\n"),
    *(b"Content-Encoding: gzip\r\n", b"Upgrade: h2c\r\nConnection: Upgrade\r\n", b"Expect: 100-continue\r\n"),
    *(
        b"ffffffffffffffff\r\n",
        b"-1",
        b"%00",
        b"/../",
        b'"',
        b"{",
        b"[" * 50,
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0",
    ),
]
LIMITS = replace(Limits(), header_s=0.1, body_s=0.1, linger_s=0.02, keepalive_s=0.1, comment_s=0.05, write_stall_s=0.2)
BOUND_S = 5.0
STATUSES = {100, 200, 202, 204, 400, 404, 405, 408, 413, 414, 415, 429, 431, 503}
_HEAD = re.compile(rb"HTTP/1\.[01] (\d{3}) [A-Za-z ]+\r\n((?:[A-Za-z-]+: [\x21-\x7e][\x20-\x7e]*\r\n)*)\r\n")


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """One to three valid requests, wounded in a few places."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(VALID), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.integers(0, 20))
        match draw(st.sampled_from(["cut", "insert", "replace", "double", "end"])):
            case "cut":
                del data[at : at + size]
            case "insert":
                data[at:at] = draw(st.sampled_from(PIECES))
            case "replace":
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=3))
            case "double":
                data[at:at] = data[at : at + size * 10]
            case _:
                del data[at:]
    return bytes(data)


class Edge:
    """A server on a loop of its own, and all that went wrong inside; its twin has the usual limits."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.service = MemoryService(waiting_max=10**6)
        self.faults: list[Any] = []
        self._runner = runner
        self._server = HttpServer(self.service, limits=LIMITS)
        self._twin = HttpServer(self.service)

    def start(self) -> None:
        self._runner.get_loop().set_exception_handler(lambda _, context: self.faults.append(context))
        self._runner.run(self._server.start())
        self._runner.run(self._twin.start())

    def close(self) -> None:
        self._runner.run(self._server.close())
        self._runner.run(self._twin.close())

    def take_faults(self) -> list[Any]:
        """Those since the last time, so that the next example starts clean."""
        found = list(self.faults)
        self.faults.clear()
        return found

    def exchange(self, pieces: list[bytes], *, is_half_closed: bool) -> bytes:
        return self._runner.run(self._exchange(pieces, is_half_closed=is_half_closed))

    def ask(self) -> Answer:
        return self._runner.run(self._ask())

    async def _exchange(self, pieces: list[bytes], *, is_half_closed: bool) -> bytes:
        async with asyncio.timeout(BOUND_S), await RawClient.tcp(self._server.port) as client:
            for piece in pieces:
                client.send(piece)
                await asyncio.sleep(0)
            if is_half_closed:
                client.writer.write_eof()
            self._finish_streams()
            return await client.closed()

    def _finish_streams(self) -> None:
        """A stream of a waiting task has no end of its own."""
        for task in self.service.held.values():
            if not task.log.is_closed:
                task.finish()

    async def _ask(self) -> Answer:
        async with await RawClient.tcp(self._twin.port) as client:
            return await client.ask("POST", "/v1/tasks", submit_body())


class Faults(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, kept: list[Any]) -> None:
        super().__init__(logging.WARNING)
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append(record.getMessage())


@pytest.fixture
def edge() -> Iterator[Edge]:
    with asyncio.Runner() as runner:
        made = Edge(runner)
        made.start()
        handler = Faults(made.faults)
        logging.getLogger().addHandler(handler)
        yield made
        logging.getLogger().removeHandler(handler)
        made.close()


@pytest.mark.orch("ORCH-3044")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutated() | st.binary(max_size=300), st.lists(st.integers(0, 2000), max_size=4), st.booleans())
def test_any_bytes_are_answered_or_closed(edge: Edge, data: bytes, cuts: list[int], is_half_closed: bool) -> None:
    places = [0, *sorted(cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(places)]

    answers = read_answers(edge.exchange(pieces, is_half_closed=is_half_closed))

    for answer in answers:
        assert answer.status in STATUSES
        if answer.status != 100:
            assert_clean(answer)
    assert edge.ask().status == 202
    assert edge.take_faults() == []


def read_answers(data: bytes) -> list[Answer]:
    """Everything that came, strictly; a last answer may be cut where the connection ended."""
    found = []
    while data:
        head = _HEAD.match(data)
        assert head is not None, data[:200]
        fields = dict(line.split(": ", 1) for line in head[2].decode().lower().splitlines())
        status, data = int(head[1]), data[head.end() :]
        if fields.get("transfer-encoding") == "chunked":
            body, data = read_chunks(data)
        else:
            size = int(fields.get("content-length", 0 if status in {100, 204} else len(data)))
            body, data = data[:size], data[size:]
        found.append(Answer(status, fields, body))
    return found


def read_chunks(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while data:
        line, _, data = data.partition(b"\r\n")
        size = int(line, 16)
        body += data[:size]
        assert data[size : size + 2] == b"\r\n"
        data = data[size + 2 :]
        if size == 0:
            break
    return body, data
