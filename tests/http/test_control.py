"""The control plane on the control socket: drain, resume, logs and status."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.http.conftest import Serve
from tests.support.memory_service import MemoryService
from tests.support.rawhttp import RawClient, request
from tests.support.waiting import until


@pytest.fixture
async def operator(serve: Serve, tmp_path: Path) -> AsyncIterator[RawClient]:
    """A connection to the control socket."""
    path = tmp_path / "control.sock"
    await serve(socket_path=path)
    async with await RawClient.unix(path) as client:
        yield client


async def test_drain_and_resume(operator: RawClient, service: MemoryService) -> None:
    drained = await operator.ask("POST", "/v1/pools/p/drain", b'{"deadline_ms": 500}')
    health = await operator.ask("GET", "/v1/pools/p/health")
    deadline_ms = service.draining["p"]
    resumed = await operator.ask("POST", "/v1/pools/p/resume")

    assert (drained.status, drained.json) == (202, {"pool_id": "p", "draining": True})
    assert (health.status, health.json["draining"], deadline_ms) == (200, True, 500)
    assert (resumed.status, resumed.json, service.draining) == (202, {"pool_id": "p", "draining": False}, {})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "json"),
        (b"{}", "field"),
        (b'{"deadline_ms":-1}', "field"),
        (b'{"deadline_ms":"1"}', "field"),
        (b'{"deadline_ms":1000000000000000}', "field"),
        (b'{"deadline_ms":1,"force":true}', "field"),
        (b'{"deadline_ms":1,"deadline_ms":2}', "json"),
    ],
)
async def test_a_wrong_drain_changes_nothing(
    operator: RawClient, service: MemoryService, body: bytes, reason: str
) -> None:
    answer = await operator.ask("POST", "/v1/pools/p/drain", body)

    assert (answer.status, answer.json["reason"]) == (400, reason)
    assert service.draining == {}


async def test_a_pool_that_is_not_there(operator: RawClient) -> None:
    answers = [
        await operator.ask("POST", "/v1/pools/q/drain", b'{"deadline_ms":1}'),
        await operator.ask("POST", "/v1/pools/q/resume"),
        await operator.ask("GET", "/v1/pools/q/health"),
        await operator.ask("GET", "/v1/pools/q/logs"),
    ]

    assert [answer.status for answer in answers] == [404] * 4


async def test_status_and_replica_sets(operator: RawClient) -> None:
    status = await operator.ask("GET", "/v1/status")
    sets = await operator.ask("GET", "/v1/replicasets")

    assert (status.status, [pool["pool_id"] for pool in status.json["pools"]]) == (200, ["p"])
    assert sets.json["replicasets"] == status.json["replicasets"]


async def test_the_last_lines_of_an_engine(operator: RawClient, service: MemoryService) -> None:
    for line in (b"one\n", b"two\n", b"\xff\n"):
        service.output["p"].write(line)

    last = await operator.ask("GET", "/v1/pools/p/logs?lines=2")
    none = await operator.ask("GET", "/v1/pools/p/logs?lines=0")

    assert (last.status, last.body, none.body) == (200, b"two\n\xff\n", b"")
    assert last.headers["content-type"] == "text/plain; charset=utf-8"
    assert service.output["p"].followers == 0


@pytest.mark.parametrize("query", ["lines=-1", "lines=10001", "follow=yes", "follow=", "lines=a&follow=true"])
async def test_wrong_queries_of_logs(operator: RawClient, query: str) -> None:
    answer = await operator.ask("GET", f"/v1/pools/p/logs?{query}")

    assert (answer.status, answer.json["reason"]) == (400, "field")


async def test_following_a_log_until_the_caller_leaves(operator: RawClient, service: MemoryService) -> None:
    output = service.output["p"]
    output.write(b"before\n")
    operator.send(request("GET", "/v1/pools/p/logs?follow=true"))
    status, _ = await operator.head()
    before = await operator.chunk()
    output.write(b"after\n")
    after = await operator.chunk()

    operator.reset()
    await until(lambda: output.followers == 0, what="the follower's leaving")

    assert (status, before, after) == (200, b"before\n", b"after\n")


async def test_a_stopping_daemon_ends_a_followed_log(serve: Serve, service: MemoryService, tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    server = await serve(socket_path=path)
    async with await RawClient.unix(path) as client:
        client.send(request("GET", "/v1/pools/p/logs?follow=true"))
        await client.head()

        await server.close()
        rest = await client.closed()

    assert rest == b"0\r\n\r\n"
    assert service.output["p"].followers == 0


async def test_tcp_without_a_key_changes_no_pool(client: RawClient, service: MemoryService) -> None:
    answers = [
        await client.ask("POST", "/v1/pools/p/drain", b'{"deadline_ms": 500}'),
        await client.ask("POST", "/v1/pools/none/resume"),
    ]

    assert [(answer.status, answer.json["reason"]) for answer in answers] == [(403, "scope")] * 2
    assert service.draining == {}


async def test_tcp_has_no_logs_and_no_status(client: RawClient) -> None:
    answers = [await client.ask("GET", path) for path in ("/v1/status", "/v1/pools/p/logs")]

    assert [(answer.status, answer.json["reason"]) for answer in answers] == [(404, "not_found")] * 2
