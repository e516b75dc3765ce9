"""B01 to B21: requests that are broken as HTTP.

Each gets an envelope or a close, and where its end is in doubt nothing after it is answered.
"""

import asyncio

import pytest

from tests.http.bad_input.asking import SMUGGLED, Row, assert_refused, bad, post, table
from tests.http.conftest import Serve
from tests.support.hygiene import assert_clean
from tests.support.memory_service import MemoryService, submit_body
from tests.support.rawhttp import RawClient, request

KIB = 1024
BODY = submit_body()
POST = b"POST /v1/tasks HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: t\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def length(value: bytes) -> bytes:
    return POST + b"Content-Length: " + value + b"\r\n\r\n"


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


HEADERS = {
    "B03 a header of 17 KiB": bad(GET + b"X: " + b"a" * 17 * KIB + b"\r\n\r\n", "headers_too_large", 431),
    "B03 17 KiB in many headers": bad(
        GET + b"".join(b"X-%d: %b\r\n" % (i, b"a" * KIB) for i in range(17)) + b"\r\n", "headers_too_large", 431
    ),
    "B03 an endless header block": Row(
        GET + b"X: " + b"a" * 10 * KIB + b"\r\nY: " + b"a" * 10 * KIB, 431, "headers_too_large", closes=True
    ),
    "B04 a URL of 3 KiB": bad(b"GET /" + b"a" * 3 * KIB + b" HTTP/1.1\r\nHost: t\r\n\r\n", "url_too_long", 414),
    "B04 a query of 3 KiB": bad(b"GET /v1/tasks?limit=" + b"1" * 3 * KIB + b" HTTP/1.1\r\n\r\n", "url_too_long", 414),
    "B05 200 headers": bad(GET + b"".join(b"X-%d: a\r\n" % i for i in range(200)) + b"\r\n", "headers_too_large", 431),
    "B06 NUL in a header": bad(GET + b"X: a\0b\r\n\r\n"),
    "B06 NUL in a header name": bad(GET + b"X\0: ab\r\n\r\n"),
    "B06 a bare LF in a header": bad(GET + b"X: a\nY: b\r\n\r\n"),
    "B06 a bare CR in a header": bad(GET + b"X: a\rY: b\r\n\r\n"),
    "B06 a bare LF after the request line": bad(b"GET /healthz HTTP/1.1\nHost: t\r\n\r\n"),
    "B06 a folded header": bad(GET + b"X: a\r\n b\r\n\r\n"),
    "B06 a blank before the colon": bad(GET + b"X : a\r\n\r\n"),
    "B06 a header without a name": bad(GET + b": a\r\n\r\n"),
    "B06 a header without a colon": bad(GET + b"X\r\n\r\n"),
    "B06 DEL in a header": bad(GET + b"X: a\x7fb\r\n\r\n"),
    "B19 no Host": bad(b"GET /healthz HTTP/1.1\r\n\r\n"),
    "B19 two Hosts": bad(b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    "B19 the same Host twice": bad(b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
}
FIRST_LINES = {
    "B02 HTTP 9.9": bad(b"GET / HTTP/9.9\r\n\r\n"),
    "B02 HTTP 1.2": bad(b"GET /healthz HTTP/1.2\r\nHost: t\r\n\r\n"),
    "B02 no version": bad(b"GET /\r\n\r\n"),
    "B02 another protocol": bad(b"GET / RTSP/1.0\r\n\r\n"),
    "B02 no target": bad(b"GET HTTP/1.1\r\nHost: t\r\n\r\n"),
    "B16 get in small letters": bad(b"get /healthz HTTP/1.1\r\nHost: t\r\n\r\n", "method", 405),
    "B16 a method of its own": bad(b"BREW /healthz HTTP/1.1\r\nHost: t\r\n\r\n", "method", 405),
    "B21 the HTTP2 preface": bad(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "B21 a TLS handshake": bad(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64)),
}
BODIES = {
    "B07 length and chunks": bad(POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "B07 chunks and length": bad(POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    "B07 chunks in capitals and length": bad(
        POST + b"Transfer-Encoding: CHUNKED\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
    ),
    "B07 chunks with a tab and length": bad(
        POST + b"Transfer-Encoding:\tchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
    ),
    "B07 an unknown coding": bad(POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n"),
    "B07 chunked twice": bad(POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    "B07 two codings": bad(POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
    "B07 almost chunked": bad(POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "B07 chunks in HTTP 1.0": bad(
        CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n",
    ),
    "B08 two lengths": bad(POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
    "B08 the same length twice": bad(POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    "B08 two lengths in one": bad(length(b"5, 6") + b"hello"),
    "B09 a negative length": bad(length(b"-5")),
    "B09 a length of 10^20": bad(length(b"1" + b"0" * 20)),
    "B09 a length with a sign": bad(length(b"+5") + b"hello"),
    "B09 a length in hex": bad(length(b"0x5") + b"hello"),
    "B09 a length of nothing": bad(length(b"")),
    "B09 a length with a blank in it": bad(length(b"5 0") + b"hello"),
    "B09 a length in other digits": bad(length("\u0665".encode()) + b"hello"),
    "B10 a chunk size that overflows": bad(CHUNKED + b"fffffffffffffffff\r\n"),
    "B10 a chunk size that is none": bad(CHUNKED + b"xyz\r\n"),
    "B10 a chunk size with a sign": bad(CHUNKED + b"-1\r\n"),
    "B10 a chunk size in C": bad(CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n"),
    "B10 a chunk size with an underscore": bad(CHUNKED + b"0_2\r\n{}\r\n0\r\n\r\n"),
    "B10 a chunk without its end": bad(CHUNKED + b"2\r\n{}}}\r\n"),
    "B10 a bare LF after a chunk size": bad(CHUNKED + b"2\n{}\r\n0\r\n\r\n"),
    "B10 a million chunks of one byte": bad(CHUNKED + chunked(*[b" "] * 1_000_000)),
    "B10 an extension of 1 MiB": bad(CHUNKED + b"2;" + b"a" * KIB * KIB + b"\r\n{}\r\n0\r\n\r\n"),
    "B12 too large by its length": bad(length(b"%d" % (KIB * KIB + 1)), "body_too_large", 413),
    "B12 too large in chunks": bad(CHUNKED + chunked(*[b" " * 64 * KIB] * 17), "body_too_large", 413),
    "B12 too large in chunks of one byte": bad(
        CHUNKED + chunked(*[b" "] * 10_000, *[b" " * 64 * KIB] * 17), "body_too_large", 413
    ),
}
READABLE = {
    "B14 gzip": Row(post(b"\x1f\x8b", Content_Encoding="gzip"), 415, "media_type"),
    "B14 deflate": Row(post(b"x\x9c", Content_Encoding="deflate"), 415, "media_type"),
    "B14 br": Row(post(b"x", Content_Encoding="br"), 415, "media_type"),
    "B14 zstd": Row(post(b"x", Content_Encoding="zstd"), 415, "media_type"),
    "B14 twice": Row(post(b"x", Content_Encoding="gzip, gzip"), 415, "media_type"),
    "B15 no type": Row(post(BODY, Content_Type=""), 415, "media_type"),
    "B15 text": Row(post(BODY, Content_Type="text/plain"), 415, "media_type"),
    "B15 a form": Row(post(b"a=1", Content_Type="application/x-www-form-urlencoded"), 415, "media_type"),
    "B15 JSON in Latin-1": Row(post(BODY, Content_Type="application/json; charset=latin-1"), 415, "media_type"),
    "B15 two types": Row(post(BODY, Content_Type="application/json, text/plain"), 415, "media_type"),
    "B15 10 KB of type": Row(post(BODY, Content_Type="application/json;" + " " * 10_000), 415, "media_type"),
    "B16 TRACE": Row(request("TRACE", "/v1/tasks"), 405, "method"),
    "B16 PUT": Row(request("PUT", "/v1/tasks", b"{}"), 405, "method"),
    "B16 PATCH": Row(request("PATCH", "/v1/tasks", b"{}"), 405, "method"),
    "B17 OPTIONS": Row(request("OPTIONS", "/v1/tasks"), 405, "method"),
    "B17 OPTIONS of all": Row(request("OPTIONS", "*"), 404, "not_found"),
    "B18 absolute form": Row(request("GET", "http://t/healthz"), 404, "not_found"),
    "B18 absolute form elsewhere": Row(request("GET", "http://169.254.169.254/healthz"), 404, "not_found"),
    "B18 two slashes": Row(request("GET", "//healthz"), 404, "not_found"),
    "B18 a dot segment": Row(request("GET", "/v1/../v1/tasks"), 404, "not_found"),
    "B18 an encoded dot segment": Row(request("GET", "/v1/%2e%2e/v1/tasks"), 404, "not_found"),
    "B18 an encoded letter": Row(request("GET", "/v1/t%61sks"), 404, "not_found"),
    "B18 an encoded NUL": Row(request("GET", "/v1/tasks/%00"), 404, "not_found"),
    "B18 an encoded slash": Row(request("GET", "/v1/tasks/a%2fstream"), 404, "not_found"),
    "B18 a backslash": Row(request("GET", "/v1\\tasks"), 404, "not_found"),
    "B18 a bad escape": Row(request("GET", "/v1/tasks/%zz"), 404, "not_found"),
    "B18 a path up and out": Row(request("GET", "/../../../../etc/passwd"), 404, "not_found"),
    "B18 a template": Row(request("GET", "/v1/tasks/{id}"), 404, "not_found"),
    "B18 a slash at the end": Row(request("GET", "/v1/tasks/"), 404, "not_found"),
    "B18 another version": Row(request("GET", "/v2/tasks"), 404, "not_found"),
    "B18 no version": Row(request("GET", "/tasks"), 404, "not_found"),
}


@pytest.mark.orch("ORCH-3044")
@pytest.mark.parametrize("row", table(FIRST_LINES | HEADERS | BODIES))
async def test_bad_framing_gets_an_envelope_and_ends_the_connection(serve: Serve, row: Row) -> None:
    server = await serve(linger_s=0.05)

    await assert_refused(server, row)


@pytest.mark.orch("ORCH-3044")
@pytest.mark.parametrize("row", table(READABLE))
async def test_a_readable_but_wrong_request_leaves_the_connection_usable(serve: Serve, row: Row) -> None:
    server = await serve()

    answer = await assert_refused(server, row)

    assert (answer.status == 405) == ("allow" in answer.headers)


@pytest.mark.parametrize("data", [b"", b"\r\n", b"\r\n" * 100], ids=["B01-nothing", "B01-one-line", "B01-100-lines"])
async def test_nothing_asked_is_nothing_answered(serve: Serve, data: bytes) -> None:
    server = await serve(header_s=0.1, linger_s=0.05)
    async with await RawClient.tcp(server.port) as client:
        client.send(data)
        client.writer.write_eof()

        assert await client.closed() == b""


@pytest.mark.parametrize("sent", [0, 1, len(BODY) - 1], ids=lambda sent: f"B11-{sent}-bytes")
async def test_a_body_shorter_than_its_length_times_out(serve: Serve, service: MemoryService, sent: int) -> None:
    server = await serve(body_s=0.1, linger_s=0.05)
    async with await RawClient.tcp(server.port) as client:
        client.send(length(b"%d" % len(BODY)) + BODY[:sent])
        answer = await client.answer()
        rest = await client.closed()

    assert_clean(answer, BODY)
    assert (answer.status, answer.json["reason"], answer.closes, rest) == (408, "timeout", True, b"")
    assert service.held == {}


@pytest.mark.parametrize("size", [KIB * KIB + 1, 10**15], ids=["B12-one-byte-more", "B12-a-petabyte"])
async def test_a_body_too_large_is_refused_before_it_is_read(serve: Serve, size: int) -> None:
    server = await serve(linger_s=0.05)
    async with await RawClient.tcp(server.port) as client:
        client.send(length(b"%d" % size))
        answer = await client.answer()
        rest = await client.closed()

    assert_clean(answer)
    assert (answer.status, answer.closes, rest) == (413, True, b"")


@pytest.mark.parametrize("expected", ["B13-of-what-is-not-wanted"])
async def test_no_100_continue_for_a_body_that_is_not_wanted(serve: Serve, expected: str) -> None:
    server = await serve(linger_s=0.05)
    async with await RawClient.tcp(server.port) as client:
        client.send(POST + b"Expect: 100-continue\r\nContent-Length: 2000000\r\n\r\n")
        answer = await client.answer()
        rest = await client.closed()

    assert_clean(answer)
    assert (answer.status, answer.closes, rest) == (413, True, b"")


@pytest.mark.parametrize("value", ["200-ok", "100-continue, 100-continue", "x" * 1000], ids=lambda v: f"B13-{v[:30]}")
async def test_an_expectation_that_nobody_knows_is_passed_over(serve: Serve, value: str) -> None:
    server = await serve()
    async with await RawClient.tcp(server.port) as client:
        answer = await client.ask("POST", "/v1/tasks", submit_body(), {"Expect": value})

    assert_clean(answer)
    assert answer.status == 202


async def test_B14_a_bomb_is_never_inflated(serve: Serve) -> None:
    server = await serve()
    bomb = b"\x1f\x8b\x08\0\0\0\0\0\0\3" + bytes(500_000)

    await assert_refused(server, Row(post(bomb, Content_Encoding="gzip"), 415, "media_type"))


@pytest.mark.parametrize("method", ["POST /v1/tasks", "POST /v1/tasks/a/cancel", "GET /healthz"])
async def test_B10_an_endless_extension_is_cut_on_every_route(
    serve: Serve, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = await serve(linger_s=0.05, framing_bytes_max=KIB)
    async with await RawClient.tcp(server.port) as client, await RawClient.tcp(server.port) as other:
        client.send(CHUNKED.replace(b"POST /v1/tasks", method.encode()) + b"2;")
        await other.ask("GET", "/healthz")
        client.send(b"a" * 64 * KIB)
        answer = await client.answer()
        rest = await client.closed()
        after = await other.ask("POST", "/v1/tasks", submit_body())

    assert_clean(answer)
    assert (answer.status < 500, rest, after.status) == (True, b"", 202)
    assert caplog.records == []


async def test_B10_the_bound_of_the_framing_counts_anew_for_each_body(serve: Serve) -> None:
    server = await serve(framing_bytes_max=4 * KIB)
    statuses = []
    async with await RawClient.tcp(server.port) as client, await RawClient.tcp(server.port) as other:
        for _ in range(4):
            body = submit_body()
            client.send(CHUNKED + b"%x;" % len(body))
            await other.ask("GET", "/healthz")
            client.send(b"a" * 2 * KIB)
            await other.ask("GET", "/healthz")
            client.send(b"a" * KIB)
            await other.ask("GET", "/healthz")
            client.send(b"\r\n" + body + b"\r\n0\r\n\r\n")
            statuses.append((await client.answer()).status)

    assert statuses == [202] * 4


async def test_B10_chunks_of_one_byte_are_one_body_within_the_bound_of_their_framing(
    serve: Serve, service: MemoryService
) -> None:
    server = await serve()
    body = submit_body(prompt="x" * 40_000)
    async with await RawClient.tcp(server.port) as client:
        client.send(CHUNKED + chunked(*(body[i : i + 1] for i in range(len(body)))))
        answer = await client.answer()

    assert_clean(answer)
    assert answer.status == 202
    assert service.held.popitem()[1].size_bytes == len(body)


async def test_B16_connect_is_no_method_of_ours(serve: Serve) -> None:
    server = await serve()
    async with await RawClient.tcp(server.port) as client:
        client.send(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n")
        answer = await client.answer()

    assert_clean(answer)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, POST")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/healthz", 200), ("/v1/tasks", 200), ("/openapi.json", 200), ("/nope", 404), ("/v1/tasks/a/stream", 405)],
    ids=lambda value: f"B17-HEAD-{value}" if isinstance(value, str) else None,
)
async def test_a_HEAD_has_no_body(serve: Serve, path: str, status: int) -> None:
    server = await serve()
    async with await RawClient.tcp(server.port) as client:
        answer = await client.ask("HEAD", path)
        after = await client.ask("GET", "/healthz")

    assert_clean(answer)
    assert (answer.status, after.status) == (status, 200)


async def test_B20_pipelined_submits_are_answered_in_order(serve: Serve, service: MemoryService) -> None:
    server = await serve()
    wrong, right = submit_body(ctx=0), submit_body()
    async with await RawClient.tcp(server.port) as client:
        client.send(post(right) + post(wrong) + post(right) + SMUGGLED)
        answers = [await client.answer() for _ in range(4)]

    for answer in answers:
        assert_clean(answer, wrong)
    assert [answer.status for answer in answers] == [202, 400, 202, 200]
    assert len(service.held) == 1


@pytest.mark.parametrize("turns", range(8), ids=lambda turns: f"B11-behind-an-upgrade-after-{turns}-turns")
async def test_who_leaves_in_a_body_behind_an_upgrade_is_no_failure(
    serve: Serve, caplog: pytest.LogCaptureFixture, turns: int
) -> None:
    server = await serve()
    upgrade = request("GET", "/healthz", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
    async with await RawClient.tcp(server.port) as client:
        client.send(upgrade + length(b"100") + b"{")
        for _ in range(turns):  # of the loop that both sides run on: each lets the server come a step further
            await asyncio.sleep(0)
        client.writer.write_eof()
        await client.closed()
    async with await RawClient.tcp(server.port) as other:
        after = await other.ask("GET", "/healthz")

    assert after.status == 200
    assert caplog.records == []
