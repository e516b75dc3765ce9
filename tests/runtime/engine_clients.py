"""What tests of the engine client are built from: requests, a sink that remembers, a script that answers."""

import asyncio
from collections.abc import Mapping

from adapters.base import EngineRequest
from supervisor.runtime.engine_http import (
    EngineHttpError,
)
from tests.runtime.scripted_engine import Peer, Script

GET = EngineRequest("GET", "/health")
POST = EngineRequest("POST", "/completion", (("Content-Type", "application/json"),), b'{"a":1}')
LONG_S = 20.0


class Listener:
    """A StreamSink that remembers; `over` is set by the end, `fed` holds the bodies as they come."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.body = b""
        self.error: EngineHttpError | None = None
        self.over = asyncio.Event()
        self.fed = asyncio.Event()

    def on_status(self, status: int, headers: Mapping[str, str]) -> None:
        self.heard.append(f"status {status}")

    def on_body(self, data: bytes) -> None:
        assert data
        self.body += data
        self.fed.set()

    def on_done(self) -> None:
        self.heard.append("done")
        self.over.set()

    def on_lost(self, error: EngineHttpError) -> None:
        self.heard.append("lost")
        self.error = error
        self.over.set()


def serving(*answers: bytes) -> Script:
    """Gives the answers in turn on each connection, then waits for the client to leave."""

    async def script(peer: Peer) -> None:
        for one in answers:
            await peer.request()
            await peer.send(one)
        await peer.wait_gone()

    return script
