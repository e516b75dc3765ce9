"""`GET /v1/tasks/{id}/stream`: replay, live frames, several readers, slow readers and readers that leave."""

import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest

from supervisor.wire.frames import COMMENT
from tests.http.conftest import Serve
from tests.support.memory_service import MemoryService, MemoryTask
from tests.support.rawhttp import RawClient, request
from tests.support.waiting import until

Accept = Callable[[RawClient], Awaitable[MemoryTask]]
KIB = 1024
LEAVING: tuple[Callable[[RawClient], None], ...] = (
    lambda client: client.reset(),
    lambda client: client.writer.close(),
    lambda client: client.writer.write_eof(),
)


def stream_of(task: MemoryTask, last_event_id: str = "") -> bytes:
    return request("GET", f"/v1/tasks/{task.accepted.task_id}/stream", headers={"Last-Event-ID": last_event_id})


async def opened(client: RawClient, task: MemoryTask, last_event_id: str = "") -> dict[str, str]:
    """The headers of a stream that has just been opened."""
    client.send(stream_of(task, last_event_id))
    status, headers = await client.head()
    assert status == 200
    return headers


async def read_frames(client: RawClient, size: int) -> bytes:
    """Chunks until there are `size` bytes of frames; comments do not count."""
    data = b""
    while len(data) < size:
        chunk = await client.chunk()
        assert chunk, "the stream ended"
        data += b"" if chunk == COMMENT else chunk
    return data


@pytest.mark.orch("ORCH-2002")
async def test_a_finished_stream_is_replayed_whole_and_the_connection_stays(client: RawClient, accept: Accept) -> None:
    task = await accept(client)
    task.start()
    task.emit("Hel", "lo\n\ndata: \x00")
    task.finish()

    client.send(stream_of(task))
    answer = await client.answer()
    after = await client.ask("GET", "/healthz")

    assert answer.body == task.log.dump()
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert "x-correlation-id" in answer.headers
    assert after.status == 200


@pytest.mark.orch("ORCH-2002", "ORCH-3026")
async def test_frames_arrive_as_they_are_made_each_batch_in_one_chunk(
    client: RawClient, accept: Accept, service: MemoryService
) -> None:
    task = await accept(client)
    await opened(client, task)
    await service.wait_readers(task.accepted.task_id, 1)

    task.start()
    started = await client.chunk()
    task.emit("a", "b", "c")
    batch = await client.chunk()
    task.emit_metrics()
    metrics = await client.chunk()
    task.finish()
    end = await client.chunk()
    last = await client.chunk()

    assert started.startswith(b"id: 1\nevent: started\n")
    assert batch.count(b"event: token") == 3
    assert metrics.startswith(b"id: 4\nevent: metrics\n")
    assert end.startswith(b"id: 5\nevent: end\n")
    assert last == b""
    assert started + batch + end == task.log.dump()


async def test_the_headers_come_before_the_first_frame(client: RawClient, accept: Accept) -> None:
    task = await accept(client)

    headers = await opened(client, task)

    assert headers["content-type"] == "text/event-stream"


async def test_the_stream_goes_on_after_the_last_event_id(client: RawClient, accept: Accept) -> None:
    task = await accept(client)
    task.start()
    task.emit("a", "b", "c")
    task.finish()

    replayed = []
    for last in ("", "0", "1", "4", "5"):
        client.send(stream_of(task, last))
        replayed.append((await client.answer()).body)

    whole = task.log.dump()
    frames = [frame + b"\n\n" for frame in whole.split(b"\n\n")[:-1]]
    assert replayed == [whole, whole, b"".join(frames[1:]), frames[4], b""]


@pytest.mark.parametrize("last", ["-1", "abc", "1.5", "0x1", "1 2", "\u0663", "9" * 20])
async def test_a_last_event_id_that_is_no_number_is_refused(client: RawClient, accept: Accept, last: str) -> None:
    task = await accept(client)
    client.send(stream_of(task, last))

    answer = await client.answer()

    assert (answer.status, answer.json["reason"]) == (400, "field")


async def test_a_reader_ahead_of_a_rerun_gets_only_what_it_has_not_seen(
    client: RawClient, accept: Accept, service: MemoryService
) -> None:
    task = await accept(client)
    await opened(client, task, last_event_id="3")
    await service.wait_readers(task.accepted.task_id, 1)

    task.start()
    task.emit("a")
    task.emit_metrics()
    task.emit("b")
    task.emit("c")
    task.emit("d", "e")
    task.finish()
    data = b"".join([chunk async for chunk in client.chunks()])

    frames = [frame + b"\n\n" for frame in task.log.dump().split(b"\n\n")[:-1]]
    assert data == b"".join(frames[3:])


async def test_a_batch_that_reaches_past_a_reader_ahead_is_cut_where_it_stands(
    client: RawClient, accept: Accept, service: MemoryService
) -> None:
    task = await accept(client)
    await opened(client, task, last_event_id="3")
    await service.wait_readers(task.accepted.task_id, 1)

    task.start()
    task.emit("a", "b", "c", "d")
    task.finish()
    data = b"".join([chunk async for chunk in client.chunks()])

    frames = [frame + b"\n\n" for frame in task.log.dump().split(b"\n\n")[:-1]]
    assert data == b"".join(frames[3:])


async def test_whoever_resumes_past_the_end_is_told_how_it_ended(client: RawClient, accept: Accept) -> None:
    task = await accept(client)
    task.start()
    task.fail()
    client.send(stream_of(task, str(10**18)))

    answer = await client.answer()

    assert answer.body.startswith(b"id: 2\nevent: error\n")
    assert answer.body.count(b"event:") == 1


async def test_many_readers_see_the_same_bytes(serve: Serve, accept: Accept, service: MemoryService) -> None:
    server = await serve()
    clients = [await RawClient.tcp(server.port) for _ in range(8)]
    task = await accept(clients[0])
    for client in clients[:4]:
        await opened(client, task)
    task.start()
    task.emit(*"abc")
    for client in clients[4:]:
        await opened(client, task)
    task.emit(*"defg")
    task.finish()

    bodies = [b"".join([chunk async for chunk in client.chunks()]) for client in clients]

    assert bodies == [task.log.dump()] * 8
    assert task.log.readers == 0
    for client in clients:
        client.reset()


async def test_silence_is_filled_with_comments(serve: Serve, accept: Accept) -> None:
    server = await serve(comment_s=0.05)
    async with await RawClient.tcp(server.port) as client:
        task = await accept(client)
        await opened(client, task)

        waiting = [await client.chunk() for _ in range(2)]
        task.start()
        task.emit("a")
        frames = await read_frames(client, len(task.log.dump()))
        running = await client.chunk()

    assert waiting == [COMMENT] * 2
    assert frames == task.log.dump()
    assert running == COMMENT


async def test_a_client_that_leaves_is_no_reader_any_more(serve: Serve, accept: Accept, service: MemoryService) -> None:
    server = await serve()
    async with await RawClient.tcp(server.port) as other:
        task = await accept(other)
        for leave in LEAVING:
            client = await RawClient.tcp(server.port)
            await opened(client, task)
            await service.wait_readers(task.accepted.task_id, 1)

            leave(client)

            await service.wait_readers(task.accepted.task_id, 0)
            client.reset()


async def test_a_slow_reader_catches_up_byte_for_byte_while_others_go_on(
    serve: Serve, accept: Accept, service: MemoryService
) -> None:
    server = await serve(send_buffer_bytes=4 * KIB, write_high_bytes=4 * KIB, write_low_bytes=KIB, replay_bytes_max=KIB)
    async with (
        await RawClient.tcp(server.port, receive_buffer_bytes=4 * KIB) as slow,
        await RawClient.tcp(server.port) as quick,
    ):
        task = await accept(quick)
        await opened(slow, task)
        await opened(quick, task)
        await until(lambda: task.log.readers == 2)
        task.start()
        for piece in range(100):
            task.emit(*["x" * 1000] * 10)
            task.emit_metrics()
            seen = await read_frames(quick, 10_000)
            assert b'"i":%d}' % (piece * 10) in seen

        assert task.log.has_live_readers  # the quick one; the slow one pulls
        task.finish()
        data = b"".join([chunk async for chunk in slow.chunks()])

    lasting = b"".join(frame + b"\n\n" for frame in data.split(b"\n\n")[:-1] if b"event: metrics" not in frame)
    assert lasting == task.log.dump()
    assert data.count(b"event: metrics") < 100


async def test_a_reader_that_does_not_read_is_cut_and_holds_nobody(
    serve: Serve, accept: Accept, service: MemoryService
) -> None:
    server = await serve(write_stall_s=0.1, send_buffer_bytes=4 * KIB, write_high_bytes=4 * KIB, write_low_bytes=KIB)
    async with (
        await RawClient.tcp(server.port, receive_buffer_bytes=4 * KIB) as stuck,
        await RawClient.tcp(server.port) as other,
    ):
        task = await accept(other)
        stuck.send(stream_of(task))
        await service.wait_readers(task.accepted.task_id, 1)
        task.start()
        task.emit(*["x" * 1000] * 2000)

        await service.wait_readers(task.accepted.task_id, 0)
        other.send(stream_of(task))
        task.finish()
        answer = await other.answer()

    assert answer.body == task.log.dump()


async def test_a_stopping_daemon_ends_streams_without_a_terminal_frame(serve: Serve, accept: Accept) -> None:
    server = await serve()
    async with await RawClient.tcp(server.port) as client, await RawClient.tcp(server.port) as late:
        task = await accept(client)
        task.start()
        task.emit("a")
        await opened(client, task)
        await read_frames(client, len(task.log.dump()))

        server.close_streams()
        rest = await client.closed()
        late.send(stream_of(task))
        refused = await late.answer()

    assert rest == b"0\r\n\r\n"
    assert not task.log.is_closed
    assert (refused.status, refused.json["code"], refused.json["reason"]) == (503, "POOL_UNAVAILABLE", "shutdown")


async def test_http_1_0_gets_plain_bytes(client: RawClient, accept: Accept) -> None:
    task = await accept(client)
    task.start()
    task.finish()
    client.send(stream_of(task).replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host: test", b"Connection: keep-alive"))

    answer = await client.answer()

    assert answer.body == task.log.dump()


async def test_streams_of_nobody(client: RawClient, accept: Accept) -> None:
    task = await accept(client)
    task.state = "expired"

    statuses = [
        (await client.ask("GET", f"/v1/tasks/{ident}/stream")).status
        for ident in (task.accepted.task_id, "unknown", "a/b", "-")
    ]

    assert statuses == [410, 404, 404, 404]


async def test_a_request_sent_during_a_stream_is_answered_after_it(
    client: RawClient, accept: Accept, service: MemoryService
) -> None:
    task = await accept(client)
    client.send(stream_of(task) + request("GET", "/healthz"))
    await service.wait_readers(task.accepted.task_id, 1)
    task.start()
    task.finish()

    streamed = await client.answer()
    after = await client.answer()

    assert streamed.body == task.log.dump()
    assert after.json == {"status": "live"}


@pytest.mark.orch("ORCH-3026")
async def test_nothing_follows_a_cancel_but_the_end(client: RawClient, serve: Serve, accept: Accept) -> None:
    task = await accept(client)
    await opened(client, task)
    task.start()
    task.emit("a", "b")
    await read_frames(client, len(task.log.dump()))
    async with asyncio.timeout(10):
        server = await serve()
        async with await RawClient.tcp(server.port) as other:
            canceled = await other.ask("POST", f"/v1/tasks/{task.accepted.task_id}/cancel")
            again = await other.ask("POST", f"/v1/tasks/{task.accepted.task_id}/cancel", b"x" * 2000)
    task.emit("too late")

    rest = b"".join([chunk async for chunk in client.chunks()])

    assert [(one.status, one.headers["x-tokens-emitted"], one.body) for one in (canceled, again)] == [
        (204, "2", b"")
    ] * 2
    assert rest.startswith(b"id: 4\nevent: end\n")
    assert b'"finish_reason":"canceled"' in rest


@pytest.mark.orch("ORCH-2002")
async def test_a_frame_of_megabytes_waits_in_the_log_for_readers_that_do_not_read(serve: Serve, accept: Accept) -> None:
    server = await serve(send_buffer_bytes=4 * KIB)
    clients = [await RawClient.tcp(server.port, receive_buffer_bytes=4 * KIB) for _ in range(4)]
    task = await accept(clients[0])
    for client in clients:
        await opened(client, task)
    await until(lambda: task.log.readers == len(clients))
    end = b"id: 1\nevent: end\ndata: " + b"x" * (4 * 1024 * KIB) + b"\n\n"
    tracemalloc.start()

    task.log.close(end)
    begun = [await client.chunk() for client in clients]
    held_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert held_bytes < len(end) / 2
    chunks = [
        [first, *[chunk async for chunk in client.chunks()]] for first, client in zip(begun, clients, strict=True)
    ]
    assert [b"".join(pieces) == end for pieces in chunks] == [True] * len(clients)
    assert max(len(piece) for pieces in chunks for piece in pieces) <= 64 * KIB
    for client in clients:
        client.reset()
