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


REFUSED_AND_CLOSED: dict[str, tuple[bytes, int, str]] = {
    "HTTP/9.9": (b"GET / HTTP/9.9\r\n\r\n", 400, "field"),
    "no version": (b"GET /\r\n\r\n", 400, "field"),
    "a header of 17 KiB": (GET + b"X: " + b"a" * 17 * KIB + b"\r\n\r\n", 431, "headers_too_large"),
    "17 KiB in many headers": (
        GET + b"".join(b"X-%d: %b\r\n" % (i, b"a" * KIB) for i in range(17)) + b"\r\n",
        431,
        "headers_too_large",
    ),
    "an endless header block": (
        GET + b"X: " + b"a" * 10 * KIB + b"\r\nY: " + b"a" * 10 * KIB,
        431,
        "headers_too_large",
    ),
    "200 headers": (GET + b"".join(b"X-%d: a\r\n" % i for i in range(200)) + b"\r\n", 431, "headers_too_large"),
    "a URL of 3 KiB": (b"GET /" + b"a" * 3 * KIB + b" HTTP/1.1\r\nHost: t\r\n\r\n", 414, "url_too_long"),
    "NUL in a header": (GET + b"X: a\0b\r\n\r\n", 400, "field"),
    "a bare LF in a header": (GET + b"X: a\nY: b\r\n\r\n", 400, "field"),
    "a folded header": (GET + b"X: a\r\n b\r\n\r\n", 400, "field"),
    "a blank before the colon": (GET + b"X : a\r\n\r\n", 400, "field"),
    "length and chunks": (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "field"),
    "chunks and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400, "field"),
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400, "field"),
    "the same length twice": (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400, "field"),
    "a negative length": (POST + b"Content-Length: -5\r\n\r\n", 400, "field"),
    "a length of 10^20": (POST + b"Content-Length: 1" + b"0" * 20 + b"\r\n\r\n", 400, "field"),
    "an unknown coding": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n", 400, "field"),
    "no Host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400, "field"),
    "two Hosts": (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "field"),
    "get in small letters": (b"get /healthz HTTP/1.1\r\nHost: t\r\n\r\n", 405, "method"),
    "a method of our own": (b"BREW /healthz HTTP/1.1\r\nHost: t\r\n\r\n", 405, "method"),
    "the HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "field"),
    "a TLS handshake": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), 400, "field"),
    "a body too large by its length": (
        POST + b"Content-Length: %d\r\n\r\n" % (KIB * KIB + 1),
        413,
        "body_too_large",
    ),
    "a body too large in chunks": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(*[b" " * 64 * KIB] * 17),
        413,
        "body_too_large",
    ),
    "a chunk size that overflows": (POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400, "field"),
    "a chunk size that is none": (POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400, "field"),
    "a chunk without its end": (POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}}}\r\n", 400, "field"),
}


@pytest.mark.parametrize(("data", "status", "reason"), REFUSED_AND_CLOSED.values(), ids=REFUSED_AND_CLOSED)
async def test_bad_framing_gets_an_envelope_and_ends_the_connection(
    serve: Serve, data: bytes, status: int, reason: str
) -> None:
    server = await serve(linger_s=0.05)

    answer, rest = await answer_to(server, data)

    assert (answer.status, answer.json["code"], answer.json["reason"]) == (status, "INVALID_PARAMS", reason)
    assert answer.headers["x-correlation-id"] == answer.json["correlation_id"]
    assert answer.headers["server"] == "orchctl"
    assert rest == b""
    assert b"Traceback" not in answer.body


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


REFUSED_AND_KEPT: dict[str, tuple[bytes, int, str]] = {
    "gzip": (request("POST", "/v1/tasks", b"\x1f\x8b", {"Content-Encoding": "gzip"}), 415, "media_type"),
    "br": (request("POST", "/v1/tasks", b"x", {"Content-Encoding": "br"}), 415, "media_type"),
    "no type": (request("POST", "/v1/tasks", BODY, {"Content-Type": ""}), 415, "media_type"),
    "text": (request("POST", "/v1/tasks", BODY, {"Content-Type": "text/plain"}), 415, "media_type"),
    "a form": (
        request("POST", "/v1/tasks", b"a=1", {"Content-Type": "application/x-www-form-urlencoded"}),
        415,
        "media_type",
    ),
    "JSON in Latin-1": (
        request("POST", "/v1/tasks", BODY, {"Content-Type": "application/json; charset=latin-1"}),
        415,
        "media_type",
    ),
    "TRACE": (request("TRACE", "/v1/tasks"), 405, "method"),
    "OPTIONS": (request("OPTIONS", "/v1/tasks"), 405, "method"),
    "PUT": (request("PUT", "/v1/tasks", b"{}"), 405, "method"),
    "HEAD of a stream": (request("OPTIONS", "/v1/tasks/a/stream"), 405, "method"),
    "OPTIONS *": (request("OPTIONS", "*"), 404, "not_found"),
    "absolute form": (request("GET", "http://t/healthz"), 404, "not_found"),
    "//": (request("GET", "//healthz"), 404, "not_found"),
    "a dot segment": (request("GET", "/v1/../v1/tasks"), 404, "not_found"),
    "an encoded dot segment": (request("GET", "/v1/%2e%2e/v1/tasks"), 404, "not_found"),
    "an encoded letter": (request("GET", "/v1/t%61sks"), 404, "not_found"),
    "an encoded NUL": (request("GET", "/v1/tasks/%00"), 404, "not_found"),
    "a template": (request("GET", "/v1/tasks/{id}"), 404, "not_found"),
    "a slash at the end": (request("GET", "/v1/tasks/"), 404, "not_found"),
    "another version": (request("GET", "/v2/tasks"), 404, "not_found"),
    "no version": (request("GET", "/tasks"), 404, "not_found"),
}


@pytest.mark.orch("ORCH-3044")
@pytest.mark.parametrize(("data", "status", "reason"), REFUSED_AND_KEPT.values(), ids=REFUSED_AND_KEPT)
async def test_a_readable_but_wrong_request_leaves_the_connection_usable(
    client: RawClient, data: bytes, status: int, reason: str
) -> None:
    client.send(data)

    answer = await client.answer()
    after = await client.ask("GET", "/healthz")

    assert (answer.status, answer.json["code"], answer.json["reason"]) == (status, "INVALID_PARAMS", reason)
    assert not answer.closes
    assert (status == 405) == ("allow" in answer.headers)
    assert after.status == 200


async def test_connect_is_no_method_of_ours(serve: Serve) -> None:
    server = await serve()
    async with await RawClient.tcp(server.port) as client:
        client.send(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n")
        answer = await client.answer()

    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, POST")


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


async def test_no_100_continue_for_a_body_that_is_not_wanted(serve: Serve) -> None:
    server = await serve(linger_s=0.05)

    answer, rest = await answer_to(server, POST + b"Expect: 100-continue\r\nContent-Length: 2000000\r\n\r\n")

    assert (answer.status, answer.closes, rest) == (413, True, b"")


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
