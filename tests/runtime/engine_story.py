"""A running fake engine as the daemon would have it: planned by the adapter, spawned, and spoken to by its client."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from adapters.base import CompletionCall, Decoded, EngineError, Finished, LaunchSpec, StreamDecoder, Token
from adapters.llamacpp import LlamaCpp
from supervisor.runtime import probes
from supervisor.runtime.engine_http import EngineHttp, EngineHttpError
from supervisor.runtime.engine_http.exchange import Exchange
from supervisor.runtime.engine_logs import tail
from supervisor.runtime.processes import EngineProcess, Processes
from supervisor.runtime.processes_port import HOST, pick_port
from supervisor.runtime.self_test import GREEDY
from tests.runtime.processes_story import GPU, Exits, order_of
from tests.support.fake_engine_launch import FakeServer

ADAPTER = LlamaCpp()
KEY = "key-of-this-worker"
READY_S = 20.0


def call(prompt: str, *, max_tokens: int = 8, seed: int = 1, stop: tuple[str, ...] = ()) -> CompletionCall:
    """A completion."""
    return CompletionCall(prompt, max_tokens, seed, GREEDY, stop=stop)


class Reader:
    """Reads one completion with the adapter's decoder, and remembers what came."""

    def __init__(self) -> None:
        self.decoded: list[Decoded] = []
        self.status = 0
        self._decoder: StreamDecoder | None = None
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.exchange: Exchange | None = None

    def on_status(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self._decoder = ADAPTER.decoder(status)

    def on_body(self, data: bytes) -> None:
        assert self._decoder is not None
        self.decoded += self._decoder.feed(data)

    def on_done(self) -> None:
        assert self._decoder is not None
        self.decoded += self._decoder.eof()
        self._finish()

    def on_lost(self, error: EngineHttpError) -> None:
        self.decoded += self._decoder.eof() if self._decoder else []
        self._finish()

    def _finish(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    async def end(self) -> None:
        """Until there is nothing more to come."""
        async with asyncio.timeout(30):
            await self._over

    @property
    def text(self) -> str:
        return "".join(item.text for item in self.decoded if isinstance(item, Token))

    @property
    def last(self) -> Finished | EngineError | None:
        """The terminal event."""
        ends = [item for item in self.decoded if not isinstance(item, Token)]
        assert len(ends) <= 1, "an answer ends once"
        return ends[0] if ends else None


@dataclass
class Worker:
    """The engine, its client and its log."""

    process: EngineProcess
    http: EngineHttp
    log: Path
    exits: Exits = field(default_factory=Exits)

    def start(self, wanted: CompletionCall) -> Reader:
        """Begin a completion."""
        reader = Reader()
        reader.exchange = self.http.stream(ADAPTER.request_completion(wanted), reader)
        return reader

    async def complete(self, wanted: CompletionCall) -> Reader:
        """Read a completion to its end."""
        reader = self.start(wanted)
        await reader.end()
        return reader

    async def busy_slots(self) -> list[int]:
        """Which slots decode now."""
        answer = await self.http.request(ADAPTER.request_slots(), 5)
        return [state.slot for state in ADAPTER.read_slots(answer.body) if state.is_busy]

    def last_words(self) -> str:
        """Its log."""
        return tail(self.log)


@asynccontextmanager
async def worker(
    every: Processes,
    server: FakeServer,
    *,
    slots: int = 2,
    ctx: int = 512,
    port: int | None = None,
    is_ready: bool = True,
) -> AsyncIterator[Worker]:
    """Spawn one; it is stopped afterwards."""
    folder = server.path.parent
    port, exits = port or pick_port(), Exits()
    plan = ADAPTER.plan_launch(
        LaunchSpec(
            pool_id="pool-a",
            model_path=str(server.model),
            model_name="fake",
            ctx=ctx,
            slots=slots,
            port=port,
            api_key=KEY,
            devices=(GPU,),
            binary=str(server.path),
            simulated=True,
        )
    )
    order = order_of(folder, *plan.argv, env=plan.env)
    process = await every.spawn(order, exits)
    found = Worker(process, EngineHttp(HOST, port, KEY), order.log_path, exits)
    try:
        if is_ready:
            await probes.wait_healthy(found.http, ADAPTER, READY_S, poll_s=0.01)
        yield found
    finally:
        found.http.close()
        await process.stop(ADAPTER.plan_stop().steps)
