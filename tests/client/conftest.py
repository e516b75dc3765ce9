"""A client of the memory daemon's real edge, and time that passes only when somebody sleeps."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from supervisor.client import OrchClient, new_completion
from supervisor.client.patience import Pace
from supervisor.wire.tasks import SubmitTask
from tests.client.scripted_peer import Act, ScriptedPeer
from tests.http.conftest import Serve, serve, service
from tests.support.memory_service import MemoryService

__all__ = ["Peers", "Serve", "serve", "service"]

Peers = Callable[..., Awaitable[ScriptedPeer]]


@dataclass
class FakeTime:
    """A clock that a sleep moves on, and each look by `tick_s`. `chance` is always the same."""

    now_s: float = 1_000.0
    tick_s: float = 0.0
    chance: float = 0.0
    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)

    def look(self) -> float:
        self.now_s += self.tick_s
        return self.now_s

    @property
    def pace(self) -> Pace:
        return Pace(self.look, self.sleep, lambda: self.chance)


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    """Starts peers that do what they are told, one act for each connection."""
    started: list[ScriptedPeer] = []

    async def start(*acts: Act) -> ScriptedPeer:
        peer = ScriptedPeer(list(acts))
        await peer.start()
        started.append(peer)
        return peer

    yield start
    for peer in started:
        await peer.close()


@pytest.fixture
async def client(serve: Serve, service: MemoryService, time: FakeTime) -> AsyncIterator[OrchClient]:
    """A client of a real edge before the service in memory."""
    server = await serve()
    async with OrchClient(f"http://127.0.0.1:{server.port}", pace=time.pace) as opened:
        yield opened


def a_task(prompt: str = "Hello") -> SubmitTask:
    """A task that the memory service takes."""
    return new_completion(prompt, model_ref="m", ctx=4_096)
