"""Broken, oversized and slow HTTP: every answer is an envelope, nothing waits for ever."""

import asyncio

import pytest

from supervisor.http.server import HttpServer
from tests.http.conftest import Serve
from tests.support.memory_service import MemoryService, submit_body
from tests.support.rawhttp import Answer, RawClient, request

KIB = 1024
BODY = submit_body()
POST = b"POST /v1/tasks HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: t\r\n"


async def answer_to(server: HttpServer, data: bytes) -> tuple[Answer, bytes]:
    """The answer to these bytes and what follows it until the server closes."""
    async with await RawClient.tcp(server.port) as client:
        client.send(data)
        return await client.answer(), await client.closed()


async def drip(client: RawClient, other: RawClient) -> None:
    """A byte at a time for ever, paced by somebody else's requests."""
    while True:
        client.send(b" ")
        await other.ask("GET", "/healthz")


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


async def test_bad_chunks_after_the_handler_began_to_wait_are_refused_at_once(serve: Serve) -> None:
    server = await serve()
    async with await RawClient.tcp(server.port) as client:
        client.send(POST + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
        await client.answer()
        client.send(b"2\r\n{}\r\nzz\r\n")

        answer = await client.answer()
        rest = await client.closed()

    assert (answer.status, answer.json["reason"]) == (400, "field")
    assert rest == b""


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", 'application/json ;charset="UTF-8"']
)
async def test_json_may_say_that_it_is_utf8(client: RawClient, kind: str) -> None:
    answer = await client.ask("POST", "/v1/tasks", submit_body(), {"Content-Type": kind})

    assert answer.status == 202


async def test_a_body_of_exactly_the_bound_is_taken(client: RawClient) -> None:
    empty = submit_body(prompt="")
    body = submit_body(prompt="x" * (KIB * KIB - len(empty)))

    answer = await client.ask("POST", "/v1/tasks", body)

    assert (len(body), answer.status) == (KIB * KIB, 202)


async def test_a_body_in_single_bytes_is_one_body(client: RawClient) -> None:
    body = submit_body()
    client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    client.send(chunked(*(body[i : i + 1] for i in range(len(body)))))

    answer = await client.answer()

    assert answer.status == 202


async def test_a_client_may_wait_for_100_continue(client: RawClient) -> None:
    body = submit_body()
    client.send(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))

    go_on = await client.answer()
    client.send(body)
    answer = await client.answer()

    assert (go_on.status, answer.status) == (100, 202)


async def test_requests_may_be_pipelined(client: RawClient, service: MemoryService) -> None:
    client.send(request("POST", "/v1/tasks", submit_body()) * 2 + request("GET", "/v1/tasks"))

    answers = [await client.answer() for _ in range(3)]

    assert [answer.status for answer in answers] == [202, 202, 200]
    assert answers[0].json == answers[1].json
    assert len(service.held) == 1


async def test_nothing_sent_is_nothing_answered(serve: Serve) -> None:
    server = await serve(header_s=0.05)
    async with await RawClient.tcp(server.port) as client:
        assert await client.closed() == b""


@pytest.mark.parametrize("sent", [b"G", b"GET /healthz HTTP/1.1\r\n", GET + b"X: a"])
async def test_a_header_block_has_a_deadline(serve: Serve, sent: bytes) -> None:
    server = await serve(header_s=0.1, linger_s=0.05)

    answer, rest = await answer_to(server, sent)

    assert (answer.status, answer.json["reason"], answer.closes, rest) == (408, "timeout", True, b"")


async def test_the_header_deadline_is_absolute_and_counts_anew_for_each_request(serve: Serve) -> None:
    server = await serve(header_s=0.3, linger_s=0.05)
    async with await RawClient.tcp(server.port) as client, await RawClient.tcp(server.port) as other:
        first = await client.ask("GET", "/healthz")
        client.send(GET + b"X: ")
        dripping = asyncio.ensure_future(drip(client, other))
        answer = await client.answer()
        dripping.cancel()

    assert (first.status, answer.status, answer.json["reason"]) == (200, 408, "timeout")


async def test_a_body_has_an_absolute_deadline(serve: Serve) -> None:
    server = await serve(body_s=0.2, linger_s=60.0)
    async with await RawClient.tcp(server.port) as client, await RawClient.tcp(server.port) as other:
        client.send(POST + b"Content-Length: 1000000\r\n\r\n")
        dripping = asyncio.ensure_future(drip(client, other))
        answer = await client.answer()
        dripping.cancel()
        rest = await client.closed()

    assert (answer.status, answer.json["reason"], answer.closes, rest) == (408, "timeout", True, b"")


async def test_a_body_cut_short_by_the_client_is_forgotten(serve: Serve, service: MemoryService) -> None:
    server = await serve()
    async with await RawClient.tcp(server.port) as leaving, await RawClient.tcp(server.port) as other:
        leaving.send(POST + b"Content-Length: 1000\r\n\r\n" + BODY)
        leaving.writer.write_eof()
        rest = await leaving.closed()
        answer = await other.ask("GET", "/healthz")

    assert (rest, answer.status, service.held) == (b"", 200, {})


async def test_a_body_that_nobody_asked_for_is_swallowed(client: RawClient) -> None:
    answers = [
        await client.ask(method, path, b"{" * 60_000) for method, path in (("GET", "/healthz"), ("POST", "/nope"))
    ]

    assert [answer.status for answer in answers] == [200, 404]


@pytest.mark.parametrize(
    ("claimed", "is_echoed"),
    [
        ("abc-DEF-123", True),
        ("a" * 64, True),
        ("a" * 65, False),
        ("", False),
        ("a b", False),
        ("a;b", False),
        ("\U0001f600", False),
        ("a" * 10_000, False),
    ],
)
async def test_a_harmless_correlation_id_is_echoed_and_any_other_replaced(
    client: RawClient, claimed: str, is_echoed: bool
) -> None:
    answers = [
        await client.ask(method, path, headers={"X-Correlation-Id": claimed})
        for method, path in (("GET", "/healthz"), ("GET", "/nope"), ("PUT", "/healthz"), ("GET", "/metrics"))
    ]

    ids = [answer.headers["x-correlation-id"] for answer in answers]
    assert all((answer == claimed) == is_echoed for answer in ids)
    assert is_echoed or (len(set(ids)) == 4 and all(len(one) == 36 for one in ids))


async def test_http_1_0_is_answered_and_closed(serve: Serve) -> None:
    server = await serve()

    answer, rest = await answer_to(server, b"GET /healthz HTTP/1.0\r\n\r\n")

    assert (answer.status, answer.json, rest) == (200, {"status": "live"}, b"")
