"""B49 to B53: ids, cursors and bodies of the routes that name a thing."""

from pathlib import Path

import pytest

from tests.http.bad_input.asking import Row, assert_refused, table
from tests.http.conftest import Serve
from tests.support.hygiene import assert_clean
from tests.support.memory_service import MemoryService, submit_body
from tests.support.rawhttp import RawClient, request

TASK_ID = "00000000-0000-4000-8000-000000000001"
UNKNOWN = "00000000-0000-4000-8000-00000000dead"
NO_IDS = {
    "unknown": UNKNOWN,
    "no UUID": "x",
    "dots": "..",
    "a dot": ".",
    "a minus": "-rf",
    "129 characters": "a" * 129,
    "a blank": "a%20b",
    "a line": "a%0d%0aX-Evil:%201",
    "a bell": "a%07",
    "quotes": "%22%27",
    "a semicolon": "a;b",
    "a comma": "a,b",
    "markup": "%3Cscript%3E",
    "a URL": "http:%2f%2f169.254.169.254",
}
ID_ROWS = {
    f"B49 {what.strip('/') or 'task'} {name}": Row(request(method, f"/v1/tasks/{ident}{what}"), 404, "not_found")
    for name, ident in NO_IDS.items()
    for method, what in (("GET", ""), ("GET", "/stream"), ("POST", "/cancel"))
}
CURSORS = ["-1", "abc", "1.0", "+1", "1e3", "0x1", "9" * 20, "9" * 4000, "\u0661", "1 2", "1,2", "'; DROP TABLE", "NaN"]
CURSOR_ROWS = {
    f"B50 {cursor[:20].encode('unicode_escape').decode()}": Row(
        request("GET", f"/v1/tasks/{TASK_ID}/stream", headers={"Last-Event-ID": cursor}), 400, "field"
    )
    for cursor in CURSORS
}


def drain(body: bytes) -> bytes:
    return request("POST", "/v1/pools/p/drain", body)


DRAIN_ROWS = {
    "B52 no deadline": Row(drain(b"{}"), 400, "field"),
    "B52 a negative deadline": Row(drain(b'{"deadline_ms":-1}'), 400, "field"),
    "B52 a deadline as text": Row(drain(b'{"deadline_ms":"1"}'), 400, "field"),
    "B52 a deadline of 1.5": Row(drain(b'{"deadline_ms":1.5}'), 400, "field"),
    "B52 a deadline of 10^15": Row(drain(b'{"deadline_ms":1000000000000000}'), 400, "field"),
    "B52 null": Row(drain(b"null"), 400, "field"),
    "B52 one more field": Row(drain(b'{"deadline_ms":1,"force":true}'), 400, "field"),
    "B52 a deadline twice": Row(drain(b'{"deadline_ms":1,"deadline_ms":2}'), 400, "json"),
    "B52 nothing": Row(drain(b""), 400, "json"),
    "B52 an unknown pool": Row(request("POST", "/v1/pools/q/drain", b'{"deadline_ms":1}'), 404, "not_found"),
    "B52 a pool outside": Row(request("POST", "/v1/pools/..%2fp/drain", b'{"deadline_ms":1}'), 404, "not_found"),
    "B52 resume of an unknown pool": Row(request("POST", "/v1/pools/q/resume"), 404, "not_found"),
    "B52 health of an unknown pool": Row(request("GET", "/v1/pools/q/health"), 404, "not_found"),
}
QUERY_ROWS = {
    f"B49 limit {value[:20]}": Row(request("GET", f"/v1/tasks?limit={value}"), 400, "field")
    for value in ("0", "-1", "1001", "abc", "1.0", "9" * 1000, "%00", "", "1&limit=1", "1&limit=x")
}


@pytest.mark.orch("ORCH-3044")
@pytest.mark.parametrize("row", table(ID_ROWS | QUERY_ROWS))
async def test_what_is_not_there_or_not_understood_is_refused(serve: Serve, row: Row) -> None:
    server = await serve()

    await assert_refused(server, row)


@pytest.mark.parametrize("row", table(DRAIN_ROWS))
async def test_an_operator_is_held_to_the_same(serve: Serve, tmp_path: Path, row: Row) -> None:
    server = await serve(socket_path=tmp_path / "s")

    await assert_refused(server, row, tmp_path / "s")


@pytest.mark.parametrize("row", table(CURSOR_ROWS))
async def test_a_cursor_that_is_no_number_of_a_frame_is_refused(serve: Serve, row: Row) -> None:
    server = await serve()
    async with await RawClient.tcp(server.port) as client:
        await client.ask("POST", "/v1/tasks", submit_body(task_id=TASK_ID))

    await assert_refused(server, row)


async def test_B49_all_that_is_not_there_looks_the_same(serve: Serve) -> None:
    server = await serve()
    async with await RawClient.tcp(server.port) as client:
        paths = [f"/v1/tasks/{ident}/stream" for ident in (UNKNOWN, "x")]
        answers = [await client.ask("GET", path, headers={"X-Correlation-Id": "same"}) for path in paths]

    assert answers[0].body == answers[1].body
    assert {name: answers[0].headers[name] for name in answers[0].headers if name != "date"} == {
        name: answers[1].headers[name] for name in answers[1].headers if name != "date"
    }


@pytest.mark.parametrize("after", [10**18, 2, 5], ids=lambda after: f"B50-after-{after}")
async def test_a_cursor_past_the_end_gets_the_end_alone(serve: Serve, service: MemoryService, after: int) -> None:
    server = await serve()
    async with await RawClient.tcp(server.port) as client:
        await client.ask("POST", "/v1/tasks", submit_body(task_id=TASK_ID))
        task = service.task_of(TASK_ID)
        task.start()
        task.finish()
        answer = await client.ask("GET", f"/v1/tasks/{TASK_ID}/stream", headers={"Last-Event-ID": str(after)})

    assert_clean(answer)
    assert answer.status == 200
    assert answer.body.count(b"event:") == (1 if after > 2 else 0)


async def test_B50_a_stream_is_the_same_twice_and_after_its_end(serve: Serve, service: MemoryService) -> None:
    server = await serve()
    async with await RawClient.tcp(server.port) as client:
        await client.ask("POST", "/v1/tasks", submit_body(task_id=TASK_ID))
        task = service.task_of(TASK_ID)
        task.start()
        task.emit("a", "b")
        task.finish()
        answers = [await client.ask("GET", f"/v1/tasks/{TASK_ID}/stream") for _ in range(2)]

    for answer in answers:
        assert_clean(answer)
    assert answers[0].body == answers[1].body == task.log.dump()


@pytest.mark.parametrize("size", [2, 1_000_000], ids=lambda size: f"B51-{size}-bytes")
async def test_a_body_of_a_cancel_is_not_looked_at(serve: Serve, service: MemoryService, size: int) -> None:
    server = await serve()
    async with await RawClient.tcp(server.port) as client:
        await client.ask("POST", "/v1/tasks", submit_body(task_id=TASK_ID))
        answer = await client.ask("POST", f"/v1/tasks/{TASK_ID}/cancel", b"{" * size)
        after = await client.ask("GET", "/healthz")

    assert_clean(answer)
    assert (answer.status, answer.headers["x-tokens-emitted"], after.status) == (204, "0", 200)


async def test_B51_an_endless_body_of_a_cancel_ends_the_connection(serve: Serve) -> None:
    server = await serve(linger_s=0.05)
    async with await RawClient.tcp(server.port) as client:
        await client.ask("POST", "/v1/tasks", submit_body(task_id=TASK_ID))
        client.send(
            f"POST /v1/tasks/{TASK_ID}/cancel HTTP/1.1\r\nHost: t\r\nContent-Length: {10**12}\r\n\r\n{{".encode()
        )
        answer = await client.answer()
        rest = await client.closed()

    assert_clean(answer)
    assert (answer.status, rest) == (204, b"")


@pytest.mark.parametrize(
    "claimed",
    ["a\r\n b", "\U0001f600", "a" * 65, "a" * 10_000, "", "a b", "a;b", "<script>", "../..", "a\tb", "%0d%0aX-Evil: 1"],
    ids=lambda claimed: f"B53-{claimed[:16]!a}".replace(" ", "-"),
)
async def test_a_correlation_id_that_is_not_harmless_is_replaced(serve: Serve, claimed: str) -> None:
    server = await serve(linger_s=0.05)
    async with await RawClient.tcp(server.port) as client:
        client.send(request("GET", "/nope", headers={"X-Correlation-Id": claimed}))
        answer = await client.answer()

    assert_clean(answer)
    assert answer.status in {400, 404}
    assert answer.headers["x-correlation-id"] != claimed
    assert not claimed or claimed.encode() not in answer.body
    assert len(answer.headers["x-correlation-id"]) == 36


@pytest.mark.parametrize(
    "line", ["a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX-Evil: 1"], ids=["B53-CRLF", "B53-LF", "B53-CR"]
)
async def test_nothing_of_a_request_becomes_a_header_of_the_answer(serve: Serve, line: str) -> None:
    server = await serve(linger_s=0.05)
    for name in ("X-Correlation-Id", "Last-Event-ID", "Host", "Content-Type", "Origin", "Accept", "Authorization"):
        async with await RawClient.tcp(server.port) as client:
            client.send(f"GET /v1/tasks/{line.encode().hex()} HTTP/1.1\r\n{name}: {line}\r\nHost: t\r\n\r\n".encode())
            answer = await client.answer()

        assert_clean(answer)
        assert answer.status in {400, 404}
        assert "x-evil" not in answer.headers
