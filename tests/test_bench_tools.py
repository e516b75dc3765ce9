"""The bench tools can be believed: the adapter takes the fake engine for llama.cpp; no damaged stream goes unseen."""

import http.client
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from adapters.base import CompletionCall, EngineRequest, Finished, Liveness, Token
from adapters.llamacpp import LlamaCpp
from bench.load import InvalidRunError, LoadPlan, Mode, run_load
from bench.native import Tools, build_tools
from bench.processes import free_port, running, wait_listening
from supervisor.wire.codes import FinishReason
from supervisor.wire.frames import (
    COMMENT,
    End,
    Started,
    StreamMetrics,
    end_frame,
    metrics_frame,
    started_frame,
    token_frame,
)

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the bench tools need a C compiler")

CPU = 0
TOKENS = 5
Damage = Callable[[list[bytes]], list[bytes]]


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return build_tools(tmp_path_factory.mktemp("bench"))


@contextmanager
def fake_engine(tools: Tools, folder: Path, *options: str) -> Iterator[int]:
    port = free_port()
    log = folder / "engine.log"
    with running([str(tools.engine), "--port", str(port), *options], CPU, log) as process:
        wait_listening(port, process, log)
        yield port


def ask(port: int, request: EngineRequest) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(request.method, request.path, request.body, dict(request.headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def load_plan(mode: Mode, port: int, total: int) -> LoadPlan:
    return LoadPlan(
        mode=mode, port=port, clients=2, tokens=TOKENS, seed=7, warmup_s=0, total=total, has_fixed_length=True
    )


def test_the_fake_engine_is_llamacpp_to_the_adapter(tools: Tools, tmp_path: Path) -> None:
    adapter = LlamaCpp()
    call = CompletionCall(prompt="#42 Once upon a time", max_tokens=TOKENS, seed=1, sampler={"temperature": 0.0})

    with fake_engine(tools, tmp_path, "--slots", "3", "--ctx", "777", "--tick-ms", "1") as port:
        health = adapter.read_health(*ask(port, adapter.request_health()))
        props = adapter.read_props([ask(port, request)[1] for request in adapter.request_props()])
        slots = adapter.read_slots(ask(port, adapter.request_slots())[1])
        tokens_in = adapter.read_tokenize(ask(port, adapter.request_tokenize("twelve bytes"))[1])
        status, body = ask(port, adapter.request_completion(call))
        metrics = adapter.read_metrics(ask(port, adapter.request_metrics())[1])
    *tokens, finished = adapter.decoder(status).feed(body)

    assert health is Liveness.READY
    assert (props.slots, props.ctx_per_slot) == (3, 777)
    assert [slot.is_busy for slot in slots] == [False] * 3
    assert tokens_in >= 3
    assert [token.text.partition("@")[0] for token in tokens if isinstance(token, Token)] == [
        f" 42.{i}" for i in range(TOKENS)
    ]
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.tokens_out) == ("length", TOKENS)
    assert metrics["tokens_out_total"] == TOKENS


def test_the_fake_engine_asks_for_its_key_as_llamacpp_does(tools: Tools, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "engine.log"
    engine = running([str(tools.engine), "--port", str(port)], CPU, log, env={"LLAMA_API_KEY": "right"})

    with engine as process:
        wait_listening(port, process, log)
        answers = {
            key: ask(port, EngineRequest("GET", "/props", (("Authorization", f"Bearer {key}"),)))[0]
            for key in ("right", "wrong", "rightly")
        }
        health = ask(port, EngineRequest("GET", "/health"))[0]

    assert answers == {"right": 200, "wrong": 401, "rightly": 401}
    assert health == 200


def test_every_stream_of_the_fake_engine_passes_the_load_generator(tools: Tools, tmp_path: Path) -> None:
    with fake_engine(tools, tmp_path, "--slots", "2", "--tick-ms", "1") as port:
        load = run_load(load_plan(Mode.DIRECT, port, total=20), tools.loadgen, CPU)

    assert (load.streams, load.tokens, load.wrong) == (20, 20 * TOKENS, 0)
    assert load.latency_ms.count == load.tokens
    assert 0 < load.latency_ms.p50 <= load.latency_ms.p99 <= load.latency_ms.max


def test_streams_beyond_the_slots_wait_and_are_served(tools: Tools, tmp_path: Path) -> None:
    with fake_engine(tools, tmp_path, "--slots", "1", "--tick-ms", "0") as port:
        load = run_load(load_plan(Mode.DIRECT, port, total=10), tools.loadgen, CPU)

    assert (load.streams, load.tokens) == (10, 10 * TOKENS)


class Server(ThreadingHTTPServer):
    """OrchQueue as far as the load generator sees it, with the project's own frames, damaged as the test says."""

    daemon_threads = True

    def __init__(self, damage: Damage) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.damage = damage
        self.tags: dict[str, str] = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        task = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.tags[task["task_id"]] = task["prompt"].split()[0].removeprefix("#")
        self.answer(202, json.dumps({"task_id": task["task_id"]}).encode())

    def do_GET(self) -> None:
        frames = whole_stream(self.server.tags[self.path.split("/")[3]])
        self.answer(200, b"".join(self.server.damage(frames)))

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the name of the base class)
        """Keep quiet."""


def whole_stream(tag: str) -> list[bytes]:
    started = Started(
        queue_position=0,
        predicted_start_ms=None,
        queue_time_ms=1,
        pool_id="bench",
        replica_id="bench/0",
        engine_version="b1",
        model_digest="sha256:0",
        kv_warmth=False,
    )
    end = End(
        tokens_out=TOKENS,
        decode_ms=1,
        finish_reason=FinishReason.LENGTH,
        tokens_in=8,
        kv_warmth=False,
        kv_migrated=False,
    )
    tokens = [token_frame(f" {tag}.{i}@{i + 1}", i) for i in range(TOKENS)]
    return [started_frame(started), *tokens, end_frame(end, TOKENS + 2)]


@contextmanager
def orchqueue(damage: Damage) -> Iterator[int]:
    with Server(damage) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "allowed",
    [
        lambda frames: frames,
        lambda frames: [COMMENT, *frames],
        lambda frames: [
            *frames[:3],
            metrics_frame(StreamMetrics(tokens_out=2, tokens_per_s=1, elapsed_ms=1), 3),
            *frames[3:],
        ],
    ],
    ids=["plain", "comment", "metrics"],
)
def test_a_right_stream_passes(tools: Tools, allowed: Damage) -> None:
    with orchqueue(allowed) as port:
        load = run_load(load_plan(Mode.TASKS, port, total=4), tools.loadgen, CPU)

    assert (load.accepted, load.streams, load.tokens) == (4, 4, 4 * TOKENS)


@pytest.mark.parametrize(
    ("word", "damage"),
    [
        ("token out of order", lambda frames: [*frames[:2], *frames[3:]]),
        ("token out of order", lambda frames: [*frames[:2], frames[1], *frames[2:]]),
        ("token out of order", lambda frames: [frames[0], frames[2], frames[1], *frames[3:]]),
        ("foreign token", lambda frames: [frames[0], token_frame(" 999.0@1", 0), *frames[2:]]),
        ("token text damaged", lambda frames: [frames[0], frames[1].replace(b"@", b"#"), *frames[2:]]),
        ("token index", lambda frames: [frames[0], frames[1].replace(b'"i":0', b'"i":1'), *frames[2:]]),
        ("token index", lambda frames: [frames[0], frames[1].replace(b"id: 2", b"id: 3"), *frames[2:]]),
        ("token before started", lambda frames: frames[1:]),
        ("started twice", lambda frames: [frames[0], *frames]),
        ("terminal id", lambda frames: [*frames[:-1], frames[-1].replace(b"id: 7", b"id: 8")]),
        ("ended with tokens missing", lambda frames: [*frames[:-2], frames[-1]]),
        ("finish reason", lambda frames: [*frames[:-1], frames[-1].replace(b"length", b"stop")]),
        ("stream cut off", lambda frames: frames[:-1]),
        ("event after the end", lambda frames: [*frames, frames[-1]]),
        ("bytes after the end", lambda frames: [*frames, b"id"]),
        ("error event", lambda frames: [*frames[:-1], b"id: 7\nevent: error\ndata: {}\n\n"]),
    ],
)
def test_a_damaged_stream_makes_the_run_invalid(tools: Tools, word: str, damage: Damage) -> None:
    with orchqueue(damage) as port, pytest.raises(InvalidRunError, match=word):
        run_load(load_plan(Mode.TASKS, port, total=2), tools.loadgen, CPU)
