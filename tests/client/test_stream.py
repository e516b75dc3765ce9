"""Reading a stream over connections that break: every event once, in order, wherever it was cut."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from supervisor.client import (
    ApiError,
    NetworkError,
    OrchClient,
    ProtocolError,
    RetryPolicy,
    StreamGapError,
    TaskFailedError,
    Token,
)
from supervisor.client.frames import Frame, StreamEvent
from supervisor.http.server import HttpServer
from supervisor.wire.codes import Code, FinishReason
from supervisor.wire.frames import COMMENT, End, Started, StreamMetrics
from tests.cli.builders import refusal
from tests.client.conftest import FakeTime, Peers, Serve, a_task
from tests.client.scripted_peer import Act, Asked, ScriptedPeer, answer, event_stream, falls_silent, resets, says
from tests.client.stories import TEXTS, after, failure, frames, metrics
from tests.support.memory_service import MemoryService

WHOLE = event_stream(after(0))


async def the_rest(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """As the daemon answers: from behind the frame that the reader names."""
    seq = int(asked.headers.get("last-event-id", "0"))
    await says(event_stream(after(seq)))(asked, writer)


async def read(client: OrchClient, after_seq: int = 0) -> list[Frame]:
    return [frame async for frame in client.frames("t", after=after_seq)]


async def read_into(seen: list[Frame], client: OrchClient) -> None:
    """What came before an error is seen too."""
    async for frame in client.frames("t"):
        seen.append(frame)  # noqa: PERF401  (a comprehension would lose them)


def text_of(events: list[StreamEvent]) -> str:
    return "".join(event.t for event in events if isinstance(event, Token))


@pytest.mark.orch("ORCH-2002")
@pytest.mark.parametrize("breaks", [says, resets], ids=["closed", "reset"])
async def test_a_stream_cut_at_any_byte_gives_the_same_events(
    peers: Peers, time: FakeTime, breaks: Callable[[bytes], Act]
) -> None:
    whole = await read_from(await peers(says(WHOLE)), time)
    assert [frame.data for frame in whole] == [frame.split(b"data: ", 1)[1].strip() for frame in frames()]

    for cut in range(len(WHOLE)):
        peer = await peers(breaks(WHOLE[:cut]), the_rest)

        assert await read_from(peer, time) == whole, f"cut at byte {cut}"
        await peer.close()


async def read_from(peer: ScriptedPeer, time: FakeTime) -> list[Frame]:
    async with OrchClient(peer.url, pace=time.pace) as client:
        return await read(client)


async def test_a_stream_cut_after_every_frame_names_the_last_one_it_has(peers: Peers, time: FakeTime) -> None:
    async def one_frame(asked: Asked, writer: asyncio.StreamWriter) -> None:
        seq = int(asked.headers.get("last-event-id", "0"))
        await resets(event_stream(COMMENT + frames()[seq])[:-5])(asked, writer)

    peer = await peers(one_frame)
    policy = RetryPolicy(tries_max=2)

    async with OrchClient(peer.url, pace=time.pace, retry=policy) as client:
        got = await read(client)

    assert [frame.seq for frame in got] == [1, 2, 3, 4, 5, 6]
    assert [asked.headers.get("last-event-id") for asked in peer.asked] == [None, "1", "2", "3", "4", "5"]
    assert time.slept == [0.05] * 5


async def test_a_peer_that_forgets_what_the_reader_has_repeats_nothing(peers: Peers, time: FakeTime) -> None:
    peer = await peers(resets(WHOLE[: len(WHOLE) // 2]), says(WHOLE))

    async with OrchClient(peer.url, pace=time.pace) as client:
        events = [event async for event in client.stream("t")]

    assert text_of(events) == "".join(TEXTS)
    assert [type(event) for event in events] == [Started, *[Token] * len(TEXTS), End]


async def test_metrics_come_through_and_count_for_nothing(peers: Peers, time: FakeTime) -> None:
    whole = frames()
    first = event_stream(b"".join([*whole[:3], metrics(3), metrics(3)]))
    peer = await peers(says(first), the_rest)

    async with OrchClient(peer.url, pace=time.pace) as client:
        events = [event async for event in client.stream("t")]

    assert sum(isinstance(event, StreamMetrics) for event in events) == 2
    assert text_of(events) == "".join(TEXTS)
    assert peer.asked[1].headers["last-event-id"] == "3"


async def test_a_gap_is_an_error_and_not_an_answer(peers: Peers, time: FakeTime) -> None:
    whole = frames()
    peer = await peers(says(event_stream(b"".join([whole[0], whole[2]]))))
    seen: list[Frame] = []

    async with OrchClient(peer.url, pace=time.pace) as client:
        with pytest.raises(StreamGapError, match="token 1 came where 0 was due"):
            await read_into(seen, client)

    assert len(peer.asked) == 1
    assert [frame.name for frame in seen] == ["started"]


@pytest.mark.parametrize("status", [404, 410, 401, 403])
async def test_a_stream_that_is_not_there_is_asked_for_once(peers: Peers, time: FakeTime, status: int) -> None:
    peer = await peers(says(answer(status, msgspec.json.encode(refusal()))))

    async with OrchClient(peer.url, pace=time.pace) as client:
        with pytest.raises(ApiError) as caught:
            await read(client)

    assert caught.value.status == status
    assert (len(peer.asked), time.slept) == (1, [])


async def test_a_daemon_that_stops_and_one_that_starts_are_waited_for(peers: Peers, time: FakeTime) -> None:
    stopping = answer(503, msgspec.json.encode(refusal(Code.POOL_UNAVAILABLE, retriable=True)), X_Backoff_Ms="5000")
    ended = event_stream(b"".join(frames()[:2]))
    # A GET whose connection breaks before the answer is sent twice by the library underneath.
    peer = await peers(says(ended), says(stopping), resets(), resets(), the_rest)

    async with OrchClient(peer.url, pace=time.pace) as client:
        events = [event async for event in client.stream("t")]

    assert text_of(events) == "".join(TEXTS)
    assert time.slept == [0.05, 5.0, 0.2]


async def test_a_daemon_that_stays_away_is_given_up_with_its_error(peers: Peers, time: FakeTime) -> None:
    peer = await peers(resets(WHOLE[: len(WHOLE) // 2]), resets())
    seen: list[Frame] = []

    async with OrchClient(peer.url, pace=time.pace, retry=RetryPolicy(tries_max=3)) as client:
        with pytest.raises(NetworkError):
            await read_into(seen, client)

    assert [frame.seq for frame in seen] == list(range(1, len(seen) + 1))
    assert time.slept == [0.05, 0.1]


async def test_only_comments_for_a_long_time_are_no_failure(peers: Peers, time: FakeTime) -> None:
    """A proxy that cuts idle connections, and a task that waits for hours."""
    time.tick_s = 10.0
    peer = await peers(*[says(event_stream(COMMENT))] * 9, the_rest)

    async with OrchClient(peer.url, pace=time.pace, retry=RetryPolicy(tries_max=3)) as client:
        events = [event async for event in client.stream("t")]

    assert text_of(events) == "".join(TEXTS)


async def test_only_comments_and_no_time_are_a_failure(peers: Peers, time: FakeTime) -> None:
    peer = await peers(says(event_stream(COMMENT)))

    async with OrchClient(peer.url, pace=time.pace, retry=RetryPolicy(tries_max=3)) as client:
        with pytest.raises(NetworkError, match="ended before the task did"):
            await read(client)

    assert len(peer.asked) == 3


async def test_a_server_that_only_repeats_itself_is_asked_a_bounded_number_of_times(
    peers: Peers, time: FakeTime
) -> None:
    peer = await peers(says(event_stream(frames()[0] + metrics(1))))

    async with OrchClient(peer.url, pace=time.pace, retry=RetryPolicy(tries_max=3)) as client:
        with pytest.raises(NetworkError, match="ended before the task did"):
            await read(client)

    assert len(peer.asked) == 3


async def test_a_silent_connection_is_left_for_another(peers: Peers, time: FakeTime) -> None:
    head = WHOLE[: WHOLE.index(b"\r\n\r\n") + 4]
    peer = await peers(falls_silent(head), the_rest)

    async with OrchClient(peer.url, pace=time.pace, silence_s=0.05) as client:
        events = [event async for event in client.stream("t")]

    assert text_of(events) == "".join(TEXTS)


@pytest.mark.parametrize(
    "garbage",
    [
        event_stream(b"event: token\ndata: {}\n\n"),
        event_stream(b"id: 1\nevent: started\ndata: oops\n\n"),
        answer(200, b"id: 1\n\n"),
        b"\x16\x03\x01 what is this\r\n\r\n",
    ],
)
async def test_garbage_is_an_error_and_asked_for_once(peers: Peers, time: FakeTime, garbage: bytes) -> None:
    peer = await peers(says(garbage))

    async with OrchClient(peer.url, pace=time.pace) as client:
        with pytest.raises(ProtocolError):
            await read(client)

    assert len(peer.asked) == 1


async def test_a_reader_may_go_on_where_another_one_was(peers: Peers) -> None:
    peer = await peers(the_rest)

    async with OrchClient(peer.url) as client:
        got = await read(client, after_seq=3)

    assert [frame.seq for frame in got] == [4, 5, 6]


async def test_a_task_as_one_answer(peers: Peers) -> None:
    accepted = answer(202, b'{"task_id":"t","job_id":"j","queue_position":0,"predicted_start_ms":null}')
    peer = await peers(says(accepted), the_rest)

    async with OrchClient(peer.url) as client:
        done = await client.complete(a_task())

    assert done.text == "".join(TEXTS)
    assert done.started is not None
    assert done.end.finish_reason is FinishReason.STOP
    assert done.accepted.job_id == "j"


async def test_a_task_that_failed_is_an_error_with_its_code(peers: Peers) -> None:
    accepted = answer(202, b'{"task_id":"t","job_id":"j","queue_position":0,"predicted_start_ms":null}')
    broken = says(event_stream(b"".join([*frames()[:2], failure(3)])))
    peer = await peers(says(accepted), broken)

    async with OrchClient(peer.url) as client:
        with pytest.raises(TaskFailedError) as caught:
            await client.complete(a_task())

    assert (caught.value.code, caught.value.retriable, caught.value.status) == (Code.WORKER_RESET, True, None)
    assert len(peer.asked) == 2


async def test_tokens_come_as_they_are_made(client: OrchClient, service: MemoryService) -> None:
    """Against the daemon's own edge: nothing is held back until more comes."""
    task = a_task()
    await client.submit(task)
    held = service.task_of(task.task_id)
    events = client.stream(task.task_id)
    first = asyncio.ensure_future(anext(events))
    await service.wait_readers(task.task_id, 1)

    held.start()
    assert isinstance(await first, Started)
    for text in TEXTS:
        held.emit(text)
        assert (await anext(events)) == Token(text, held.log.tokens - 1)
    held.finish()

    assert [type(event) async for event in events] == [End]


async def test_who_leaves_a_stream_leaves_the_connection(client: OrchClient, service: MemoryService) -> None:
    task = a_task()
    await client.submit(task)
    service.task_of(task.task_id).start()
    events = client.stream(task.task_id)
    await anext(events)

    await events.aclose()

    await service.wait_readers(task.task_id, 0)


async def test_an_edge_that_restarts_in_mid_stream_is_not_noticed(
    serve: Serve, service: MemoryService, time: FakeTime
) -> None:
    first = await serve()
    task = a_task()
    async with OrchClient(f"http://127.0.0.1:{first.port}", pace=time.pace) as client:
        await client.submit(task)
        held = service.task_of(task.task_id)
        held.start()
        held.emit("a", "b")
        events = client.stream(task.task_id)
        seen = [await anext(events) for _ in range(3)]
        await first.close()
        held.emit("c")
        held.finish()
        second = HttpServer(service, port=first.port)
        await second.start()

        rest = [event async for event in events]
        await second.close()

    assert text_of(seen) == "ab"
    assert text_of(rest) == "c"
    assert isinstance(rest[-1], End)
