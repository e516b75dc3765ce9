"""A real edge on real sockets, before a service in memory."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.http.limits import Limits
from supervisor.http.server import HttpServer
from tests.support.memory_service import MemoryService, MemoryTask, submit_body
from tests.support.rawhttp import RawClient

Serve = Callable[..., Awaitable[HttpServer]]


@pytest.fixture
def service() -> MemoryService:
    return MemoryService()


@pytest.fixture
async def serve(service: MemoryService) -> AsyncIterator[Serve]:
    """Starts an edge; limits are given by name, `socket_path` and `simulated` as to `HttpServer`."""
    started: list[HttpServer] = []

    async def start(socket_path: Path | None = None, simulated: str | None = None, **limits: Any) -> HttpServer:
        server = HttpServer(service, socket_path=socket_path, simulated=simulated, limits=replace(Limits(), **limits))
        await server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        await server.close()


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[RawClient]:
    """A connection to an edge with the limits of the contract."""
    server = await serve()
    async with await RawClient.tcp(server.port) as connected:
        yield connected


@pytest.fixture
def accept(service: MemoryService) -> Callable[[RawClient], Awaitable[MemoryTask]]:
    """Submits a task over HTTP and gives what the service holds of it."""

    async def submit(client: RawClient) -> MemoryTask:
        answer = await client.ask("POST", "/v1/tasks", submit_body())
        assert answer.status == 202, answer
        return service.task_of(answer.json["task_id"])

    return submit
