"""What tests of the relay are built from: events of llama.cpp, a sink that remembers, orders."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from adapters.base import EngineRequest, Finished, StreamDecoder
from adapters.llamacpp_stream import CompletionDecoder, ErrorDecoder
from supervisor.runtime.engine_http import EngineHttp
from supervisor.runtime.relay import Relay
from supervisor.runtime.relay_facts import RunFault, RunOrder, Stall, TokenMeter
from supervisor.runtime.tasklog import OnReaders, TaskLog
from supervisor.wire.frames import Started, started_frame, token_frame
from tests.runtime.scripted_engine import HEAD, LAST_CHUNK, Peer, Script, chunk, scripted_engine

STARTED = started_frame(
    Started(
        queue_position=0,
        predicted_start_ms=None,
        queue_time_ms=1,
        pool_id="p",
        replica_id="p/0",
        engine_version="b1",
        model_digest="sha256:0",
        kv_warmth=False,
    )
)


def token_event(text: str, count: int) -> bytes:
    event = {"index": 0, "content": text, "stop": False, "id_slot": -1, "tokens_predicted": count}
    return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"


def stop_event(count: int) -> bytes:
    timings = {"cache_n": 0, "prompt_ms": 1.0, "predicted_ms": 12.5}
    event = {"content": "", "stop": True, "tokens_predicted": count, "tokens_evaluated": 5, "stop_type": "limit"}
    return b"data: " + json.dumps(event | {"timings": timings}).encode() + b"\n\n"


def events(*texts: str) -> list[bytes]:
    return [token_event(text, count) for count, text in enumerate(texts, 1)]


def decoder(status: int) -> StreamDecoder:
    return CompletionDecoder() if status == 200 else ErrorDecoder(status)


def texts_of(log: TaskLog) -> list[str]:
    """What a client makes of the log's token frames; checks that their numbers have no gap."""
    tokens: list[str] = []
    for frame in log.dump().decode().split("\n\n")[:-1]:
        number, kind, data = frame.split("\n")
        if kind == "event: token":
            token = json.loads(data.removeprefix("data: "))
            assert (token["i"], number) == (len(tokens), f"id: {len(tokens) + 2}")
            tokens.append(token["t"])
    return tokens


@dataclass
class Facts:
    """A RunSink: what it was told, in order. `over` is set by the last fact of a run."""

    told: list[str] = field(default_factory=list)
    finished: Finished | None = None
    fault: RunFault | None = None
    message: str = ""
    stall: Stall | None = None
    emitted: int = -1
    decode_ms: float = -1.0
    on_first: Callable[[int], object] = lambda _run_id: None
    first: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def run_first_token(self, job_id: str, run_id: int) -> None:
        self.told.append("first")
        self.first.set()
        self.on_first(run_id)

    def run_finished(self, job_id: str, run_id: int, finished: Finished, tokens_emitted: int, decode_ms: float) -> None:
        self.told.append("finished")
        self.finished, self.emitted, self.decode_ms = finished, tokens_emitted, decode_ms
        self.over.set()

    def run_failed(self, job_id: str, run_id: int, kind: RunFault, message: str, tokens_emitted: int) -> None:
        self.told.append("failed")
        self.fault, self.message, self.emitted = kind, message, tokens_emitted
        self.over.set()

    def run_stalled(self, job_id: str, run_id: int, which: Stall) -> None:
        self.told.append("stalled")
        self.stall = which
        self.over.set()


def a_log(on_readers: OnReaders | None = None) -> TaskLog:
    log = TaskLog("job", on_readers)
    log.append_started(STARTED)
    return log


def an_order(
    port: int,
    log: TaskLog,
    *,
    run_id: int = 1,
    idle_ms: int = 60_000,
    first_token_ms: int | None = None,
    tokens_max: int = 1000,
    http: EngineHttp | None = None,
    body: bytes = b"{}",
    make_decoder: Callable[[int], StreamDecoder] = decoder,
) -> RunOrder:
    return RunOrder(
        job_id="job",
        run_id=run_id,
        engine=http or EngineHttp("127.0.0.1", port, "key"),
        request=EngineRequest("POST", "/completion", (), body),
        decoder=make_decoder,
        log=log,
        idle_ms=idle_ms,
        first_token_ms=first_token_ms,
        tokens_max=tokens_max,
        meter=TokenMeter(),
    )


class Collector:
    """A reader that takes `room` writes before it is behind."""

    def __init__(self, log: TaskLog, room: int = 1_000_000) -> None:
        self.log = log
        self.room = room
        self.cursor = log.seq
        self.writes: list[bytes] = []

    def push(self, data: bytes) -> bool:
        self.writes.append(data)
        self.cursor = self.log.seq
        self.room -= 1
        return self.room > 0

    def finish(self) -> None:
        pass


def sending(*pieces: bytes) -> Script:
    """Answers the first request with these writes and waits for the client to leave."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)
        await peer.wait_gone()

    return script


def stream_of(*texts: str) -> bytes:
    return HEAD + b"".join(chunk(event) for event in [*events(*texts), stop_event(len(texts))]) + LAST_CHUNK


async def relayed(raw: bytes) -> tuple[Facts, TaskLog]:
    """One run against an engine that sends `raw` and closes."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(raw)

    async with scripted_engine(script) as engine:
        facts, log = Facts(), a_log()
        Relay(facts).start(an_order(engine.port, log))
        await facts.over.wait()
        return facts, log


def frames_of(*texts: str) -> list[bytes]:
    return [token_frame(text, index) for index, text in enumerate(texts)]
