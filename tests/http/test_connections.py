"""How many connections, how long they may idle, and what happens to those that do not read or do not leave."""

import asyncio
import shutil
import ssl
from pathlib import Path

import pytest

from supervisor.http.limits import Limits
from supervisor.http.server import HttpServer
from supervisor.http.tls import Tls
from tests.http.conftest import Serve
from tests.support.certificates import make_certificate
from tests.support.memory_service import MemoryService, submit_body
from tests.support.rawhttp import RawClient, request
from tests.support.waiting import until

TASK_ID = "00000000-0000-4000-8000-000000000001"
KIB = 1024


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    if shutil.which("openssl") is None:
        pytest.skip("the openssl program makes the certificates")
    tls = Tls(*make_certificate(tmp_path, "first"), {})
    tls.take_up()
    return tls


async def test_the_oldest_idle_connection_makes_room(serve: Serve) -> None:
    server = await serve(connections_max=3)
    clients = [await RawClient.tcp(server.port) for _ in range(3)]
    for client in clients:
        await client.ask("GET", "/healthz")

    async with await RawClient.tcp(server.port) as newcomer:
        answer = await newcomer.ask("GET", "/healthz")
        rest = await clients[0].closed()
        others = [await client.ask("GET", "/healthz") for client in clients[1:]]

    assert (answer.status, rest) == (200, b"")
    assert [other.status for other in others] == [200, 200]
    for client in clients:
        client.reset()


async def test_with_all_connections_busy_a_newcomer_is_refused_and_may_come_again(
    serve: Serve, service: MemoryService
) -> None:
    server = await serve(connections_max=2, linger_s=0.05)
    busy = [await RawClient.tcp(server.port) for _ in range(2)]
    await busy[0].ask("POST", "/v1/tasks", submit_body(task_id=TASK_ID))
    for client in busy:
        client.send(request("GET", f"/v1/tasks/{TASK_ID}/stream"))
        await client.head()

    async with await RawClient.tcp(server.port) as newcomer:
        refused = await newcomer.answer()
        rest = await newcomer.closed()
    service.task_of(TASK_ID).finish()
    whole = [b"".join([chunk async for chunk in client.chunks()]) for client in busy]
    async with await RawClient.tcp(server.port) as later:
        answer = await later.ask("GET", "/healthz")

    assert (refused.status, refused.json["code"], refused.json["reason"]) == (429, "ADMISSION_REJECT", "rate_limit")
    assert (refused.headers["retry-after"], refused.closes, rest) == ("1", True, b"")
    assert whole == [service.task_of(TASK_ID).log.dump()] * 2
    assert answer.status == 200
    for client in busy:
        client.reset()


async def test_a_flood_on_tcp_leaves_the_control_socket_alone(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = await serve(socket_path=path, connections_max=5)
    flood = [await RawClient.tcp(server.port) for _ in range(50)]

    async with await RawClient.unix(path) as operator:
        answer = await operator.ask("GET", "/v1/status")

    assert answer.status == 200
    for client in flood:
        client.reset()


async def test_handshakes_count_from_accept_on_and_the_oldest_makes_room(
    service: MemoryService, tls: Tls, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    server = HttpServer(service, socket_path=path, limits=Limits(connections_max=3, header_s=30), tls=tls)
    await server.start()
    silent = [await RawClient.tcp(server.port) for _ in range(20)]
    rests = [await client.closed() for client in silent[:17]]
    counted = server.connections
    async with await RawClient.unix(path) as operator:
        status = (await operator.ask("GET", "/v1/status")).status
    trusting = ssl.create_default_context(cafile=tls.cert_file)
    async with RawClient(
        *await asyncio.open_connection("127.0.0.1", server.port, ssl=trusting, server_hostname="localhost")
    ) as newcomer:
        answer = await newcomer.ask("GET", "/healthz")
    await server.close()
    left = [await client.closed() for client in silent[17:]]

    assert (rests, counted) == ([b""] * 17, 3)
    assert (status, answer.status) == (200, 200)
    assert left == [b""] * 3


async def test_a_handshake_takes_the_place_of_an_idle_connection(service: MemoryService, tls: Tls) -> None:
    server = HttpServer(service, limits=Limits(connections_max=1, header_s=30), tls=tls)
    await server.start()
    trusting = ssl.create_default_context(cafile=tls.cert_file)
    async with RawClient(
        *await asyncio.open_connection("127.0.0.1", server.port, ssl=trusting, server_hostname="localhost")
    ) as idle:
        await idle.ask("GET", "/healthz")
        silent = await RawClient.tcp(server.port)
        rest = await idle.closed()
    await server.close()

    assert rest == b""
    assert await silent.closed() == b""


async def test_an_idle_connection_is_closed(serve: Serve) -> None:
    server = await serve(keepalive_s=0.1)
    async with await RawClient.tcp(server.port) as client:
        answer = await client.ask("GET", "/healthz")
        rest = await client.closed()

    assert (answer.status, answer.closes, rest) == (200, False, b"")


async def test_slow_senders_are_closed_and_others_are_served_meanwhile(serve: Serve) -> None:
    server = await serve(header_s=0.3, body_s=0.3, linger_s=0.05)
    slow = [await RawClient.tcp(server.port) for _ in range(60)]
    for number, client in enumerate(slow):
        client.send((b"", b"GET / HT", b"POST /v1/tasks HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\n{")[number % 3])
    async with await RawClient.tcp(server.port) as healthy:
        answers = [await healthy.ask("GET", "/healthz") for _ in range(50)]

    await asyncio.gather(*(client.closed() for client in slow))

    assert {answer.status for answer in answers} == {200}
    for client in slow:
        client.reset()


async def test_a_client_that_does_not_read_its_answers_is_cut(serve: Serve, service: MemoryService) -> None:
    server = await serve(write_stall_s=0.1, send_buffer_bytes=4 * KIB, write_high_bytes=4 * KIB, write_low_bytes=KIB)
    async with await RawClient.tcp(server.port, receive_buffer_bytes=4 * KIB) as client:
        await client.ask("GET", "/healthz")
        client.stop_reading()
        for _ in range(20):
            client.send(request("GET", "/openapi.json"))

        await until(lambda: server.connections == 0, what="the cut")
        client.go_on_reading()
        with pytest.raises(ConnectionResetError):  # what was left in the kernel is dropped with the connection
            await client.reader.read()


async def test_what_is_stuck_after_the_last_answer_is_cut_too(serve: Serve) -> None:
    server = await serve(write_stall_s=0.1, send_buffer_bytes=4 * KIB)
    async with await RawClient.tcp(server.port, receive_buffer_bytes=4 * KIB) as client:
        # One answer that fits into our own buffer, but not into the kernel's; the connection is to close after it.
        await client.ask("GET", "/healthz")
        client.stop_reading()
        client.send(request("GET", "/openapi.json", headers={"Connection": "close"}))

        await until(lambda: server.connections == 0, what="the cut")


async def test_a_reset_in_the_middle_of_everything_leaks_nothing(serve: Serve, service: MemoryService) -> None:
    server = await serve()
    async with await RawClient.tcp(server.port) as other:
        await other.ask("POST", "/v1/tasks", submit_body(task_id=TASK_ID))
        for data in (
            b"GET /he",
            b"POST /v1/tasks HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
            request("GET", f"/v1/tasks/{TASK_ID}/stream") * 3,
            request("GET", "/healthz") * 100,
        ):
            async with await RawClient.tcp(server.port) as client:
                client.send(data)
                client.reset()
        answer = await other.ask("GET", "/healthz")
        await until(lambda: service.task_of(TASK_ID).log.readers == 0, what="the last reader's leaving")

    assert answer.status == 200
    await until(lambda: len(asyncio.all_tasks()) <= 2, what="the end of all connections' tasks")
