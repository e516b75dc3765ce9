"""Handing a task in over a network that breaks, to a daemon that is busy: once, however often it was sent."""

import msgspec
import pytest

from supervisor.client import NEVER, ApiError, NetworkError, OrchClient, ProtocolError, RetryPolicy, UnreachableError
from supervisor.client.errors import ClientError
from supervisor.core.refusals import Refused
from supervisor.wire.codes import RETRIABLE, Code, Reason
from supervisor.wire.tasks import Accepted
from tests.cli.builders import refusal
from tests.client.conftest import FakeTime, Peers, Serve, a_task
from tests.client.scripted_peer import answer, falls_silent, resets, says
from tests.support.memory_service import FULL, MemoryService

ACCEPTED = msgspec.json.encode(Accepted(task_id="t", job_id="j", queue_position=3, predicted_start_ms=None))
TAKEN = says(answer(202, ACCEPTED))


def busy(status: int = 503, code: Code = Code.POOL_UNREADY, **headers: str) -> bytes:
    return answer(status, msgspec.json.encode(refusal(code, retriable=code in RETRIABLE)), **headers)


async def test_an_accepted_task_is_the_daemons_own_reply(client: OrchClient, service: MemoryService) -> None:
    task = a_task()

    accepted = await client.submit(task)

    assert accepted == service.task_of(task.task_id).accepted
    assert service.task_of(task.task_id).request == task


@pytest.mark.orch("ORCH-3025", "ORCH-2007")
async def test_a_full_queue_is_asked_again_after_its_own_hint(
    client: OrchClient, service: MemoryService, time: FakeTime
) -> None:
    service.refuse_next = FULL

    accepted = await client.submit(a_task())

    assert accepted.queue_position == 0
    assert time.slept == [1.5]


@pytest.mark.orch("ORCH-3025")
@pytest.mark.parametrize("code", [Code.INVALID_PARAMS, Code.INTERNAL])
async def test_what_cannot_mend_is_asked_once(
    client: OrchClient, service: MemoryService, time: FakeTime, code: Code
) -> None:
    service.refuse_next = Refused(code=code, message="No.", reason=Reason.FIELD, retry_after_ms=5)

    with pytest.raises(ApiError) as caught:
        await client.submit(a_task())

    assert (caught.value.code, caught.value.reason, caught.value.retriable) == (code, "field", False)
    assert time.slept == []
    assert not service.held


async def test_an_error_has_all_that_the_daemon_said(serve: Serve, service: MemoryService) -> None:
    service.refuse_next = FULL
    server = await serve()

    async with OrchClient(f"http://127.0.0.1:{server.port}", retry=NEVER) as client:
        with pytest.raises(ApiError) as caught:
            await client.submit(a_task())

    error = caught.value
    assert (error.status, error.code, error.reason, error.retry_after_ms) == (
        429,
        "ADMISSION_REJECT",
        "queue_full",
        1_500,
    )
    assert error.correlation_id
    assert error.correlation_id in str(error)


async def test_503_and_then_202(peers: Peers, time: FakeTime) -> None:
    peer = await peers(says(busy(X_Backoff_Ms="250", Retry_After="1")), says(busy(Retry_After="2")), TAKEN)
    told: list[tuple[ClientError, float]] = []

    async with OrchClient(peer.url, pace=time.pace, on_retry=lambda *what: told.append(what)) as client:
        accepted = await client.submit(a_task())

    assert accepted.queue_position == 3
    assert time.slept == [0.25, 2.0]
    assert [(str(error.code), wait_s) for error, wait_s in told if isinstance(error, ApiError)] == [
        ("POOL_UNREADY", 0.25),
        ("POOL_UNREADY", 2.0),
    ]


@pytest.mark.parametrize(
    "breaking",
    [resets(), says(b""), resets(b"HTTP/1.1 202"), says(answer(202, ACCEPTED)[:-3]), says(answer(502, b"<html>"))],
    ids=["reset after the request", "closed", "half a status line", "half a body", "a gateway"],
)
async def test_a_lost_reply_sends_the_same_task_again(peers: Peers, time: FakeTime, breaking: object) -> None:
    peer = await peers(breaking, breaking, TAKEN)

    async with OrchClient(peer.url, pace=time.pace) as client:
        await client.submit(a_task())

    assert len(peer.asked) == 3
    assert len({asked.body for asked in peer.asked}) == 1
    assert time.slept == [0.05, 0.1]


async def test_a_reply_that_got_lost_makes_no_second_task(serve: Serve, service: MemoryService, time: FakeTime) -> None:
    server = await serve()
    task = a_task()
    async with OrchClient(f"http://127.0.0.1:{server.port}", pace=time.pace) as client:
        first = await client.submit(task)
        second = await client.submit(task)

    assert first.job_id == second.job_id
    assert len(service.held) == 1


async def test_tries_are_bounded(peers: Peers, time: FakeTime) -> None:
    peer = await peers(resets())
    policy = RetryPolicy(tries_max=4)

    async with OrchClient(peer.url, pace=time.pace, retry=policy) as client:
        with pytest.raises(NetworkError):
            await client.submit(a_task())

    assert len(peer.asked) == 4


async def test_the_total_is_bounded_and_a_hint_past_it_not_waited_for(peers: Peers, time: FakeTime) -> None:
    peer = await peers(says(busy(429, Code.ADMISSION_REJECT, Retry_After="4")))
    policy = RetryPolicy(tries_max=99, total_s=10.0)

    async with OrchClient(peer.url, pace=time.pace, retry=policy) as client:
        with pytest.raises(ApiError) as caught:
            await client.submit(a_task())

    assert caught.value.retry_after_ms == 4_000
    assert time.slept == [4.0, 4.0]


async def test_a_peer_that_never_answers_is_left_in_time(peers: Peers, time: FakeTime) -> None:
    peer = await peers(falls_silent(b""), TAKEN)
    policy = RetryPolicy(total_s=0.0)

    async with OrchClient(peer.url, pace=time.pace, retry=policy) as client:
        with pytest.raises(NetworkError, match="no answer within 1 s"):
            await client.submit(a_task())


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        answer(202, b"<html>"),
        answer(202, b'{"task_id": 5}'),
        answer(202, b"\xff\xff"),
        answer(404, b"not here"),
        answer(302, b"", Location="http://127.0.0.1:1/"),
        answer(500, b'{"code": "TEAPOT"}'),
    ],
)
async def test_garbage_is_no_reason_to_ask_again(peers: Peers, time: FakeTime, garbage: bytes) -> None:
    peer = await peers(says(garbage))

    async with OrchClient(peer.url, pace=time.pace) as client:
        with pytest.raises(ProtocolError):
            await client.submit(a_task())

    assert len(peer.asked) == 1


async def test_a_daemon_that_is_not_there_yet_is_waited_for(peers: Peers, time: FakeTime) -> None:
    peer = await peers(TAKEN)
    await peer.close()

    async def start(error: ClientError) -> None:
        assert isinstance(error, UnreachableError)
        if len(time.slept) == 2:
            await peer.start()

    async def sleep(seconds: float) -> None:
        await time.sleep(seconds)
        await start(errors[-1])

    errors: list[ClientError] = []
    pace = type(time.pace)(lambda: time.now_s, sleep, lambda: 0.0)
    async with OrchClient(peer.url, pace=pace, on_retry=lambda error, _: errors.append(error)) as client:
        await client.submit(a_task())

    assert time.slept == [0.05, 0.1]


async def test_a_key_goes_out_as_a_bearer(peers: Peers) -> None:
    peer = await peers(TAKEN)

    async with OrchClient(peer.url, api_key="sekret") as client:
        await client.submit(a_task())

    assert peer.asked[0].headers["authorization"] == "Bearer sekret"


@pytest.mark.parametrize("address", ["", "127.0.0.1:8090", "ftp://x", "unix:", "http://", "http://h/?q=1"])
def test_an_address_that_cannot_be_meant_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="address of"):
        OrchClient(address)
