"""A small daemon for the CLI to talk to: the real routes and words over a real Unix socket, without engines.

It speaks through the wire structs, so that a reply that the daemon could not send cannot be tested with. A test holds
its tasks in its hands: `publish` adds a frame to a stream, and a reader sees it at once.
"""

import http.server
import socketserver
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from supervisor.wire.codes import Code, Engine, FinishReason, Reason
from supervisor.wire.errors import ErrorEnvelope
from supervisor.wire.frames import COMMENT, End, Started, end_frame, started_frame, token_frame
from supervisor.wire.pools import DrainRequest, HostStatus, PoolChange, PoolHealth
from supervisor.wire.tasks import Accepted, SubmitTask, TaskView
from tests.cli.builders import host, pool, refusal

WAIT_S_MAX = 30.0
"""No wait of a test is longer: what has not come by then never will."""


@dataclass(frozen=True)
class Request:
    """What the CLI sent."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


@dataclass
class Task:
    """One task and its frames, in order; `is_over` once the terminal one is there."""

    submitted: SubmitTask
    job_id: str
    frames: list[bytes] = field(default_factory=list)
    tokens: int = 0
    is_over: bool = False


class Peer:
    """The state behind the routes. Its lock is held for every look and change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.status: HostStatus = host(pool())
        self.tasks: dict[str, Task] = {}
        self.requests: list[Request] = []
        self.refusals: dict[str, tuple[int, ErrorEnvelope]] = {}
        self.raw_replies: dict[str, bytes] = {}
        self.replies: dict[str, tuple[int, msgspec.Struct]] = {}
        self.log_pieces: list[bytes] = []
        self.is_log_open = False
        self.answer: list[str] | None = ["Hello", " world"]
        self.breaks_after: list[int] = []
        self.submits_broken = 0
        self.on_status: Callable[[], None] = lambda: None
        self.on_refused: Callable[[str], object] = lambda _: None
        self.changed = threading.Condition()

    def publish(self, task_id: str, frame: bytes, *, is_last: bool = False) -> None:
        with self.changed:
            task = self.tasks[task_id]
            task.frames.append(frame)
            task.is_over = is_last
            self.changed.notify_all()

    def start(self, task_id: str) -> None:
        self.publish(task_id, started_frame(STARTED))

    def say(self, task_id: str, text: str) -> None:
        with self.changed:
            task = self.tasks[task_id]
            self.publish(task_id, token_frame(text, task.tokens))
            task.tokens += 1

    def end(self, task_id: str, reason: FinishReason = FinishReason.STOP) -> None:
        with self.changed:
            tokens = self.tasks[task_id].tokens
            end = End(
                tokens_out=tokens, decode_ms=500, finish_reason=reason, tokens_in=7, kv_warmth=False, kv_migrated=False
            )
            self.publish(task_id, end_frame(end, tokens + 2), is_last=True)

    def only_task(self) -> str:
        """The id of the one task, once it was handed in."""
        self.wait_for(lambda: bool(self.tasks))
        return next(iter(self.tasks))

    def wait_for(self, is_so: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(is_so, WAIT_S_MAX), "it never came"

    def record(self, request: Request) -> None:
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()

    def asked(self, method: str, path: str) -> list[Request]:
        with self.changed:
            return [one for one in self.requests if (one.method, one.path) == (method, path)]

    def pool(self, pool_id: str) -> PoolHealth | None:
        return next((one for one in self.status.pools if one.pool_id == pool_id), None)

    def change_pool(self, pool_id: str, **changes: Any) -> None:
        with self.changed:
            pools = [
                msgspec.structs.replace(one, **changes) if one.pool_id == pool_id else one for one in self.status.pools
            ]
            self.status = msgspec.structs.replace(self.status, pools=pools)


STARTED = Started(
    queue_position=0,
    predicted_start_ms=None,
    queue_time_ms=4,
    pool_id="small",
    replica_id="small/0",
    engine_version="b11434",
    model_digest="sha256:" + "ab" * 32,
    kv_warmth=False,
)


class Handler(http.server.BaseHTTPRequestHandler):
    """The routes."""

    protocol_version = "HTTP/1.1"
    peer: ClassVar[Peer]

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the name is the base class's)
        """Quiet."""

    def address_string(self) -> str:
        return "unix"

    def _handle(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, url.path, parse_qs(url.query), dict(self.headers.items()), body)
        self.peer.record(request)
        if url.path in self.peer.raw_replies:
            self.wfile.write(self.peer.raw_replies[url.path])
            self.close_connection = True
            return
        if url.path in self.peer.replies:
            status, reply = self.peer.replies[url.path]
            self._reply(HTTPStatus(status), reply)
            return
        if url.path in self.peer.refusals:
            refused = self.peer.refusals[url.path]
            self.peer.on_refused(url.path)
            self._refuse(*refused)
            return
        match (self.command, *(unquote(part) for part in url.path.split("/")[2:])):
            case ("GET", "status"):
                self.peer.on_status()
                self._reply(HTTPStatus.OK, self.peer.status)
            case (_, "pools", pool_id, verb):
                self._pool(pool_id, verb, request)
            case ("POST", "tasks"):
                self._submit(body)
            case (_, "tasks", task_id, *rest):
                self._task(task_id, rest)
            case _:
                self._not_found("There is no such route.")

    def _pool(self, pool_id: str, verb: str, request: Request) -> None:
        health = self.peer.pool(pool_id)
        if health is None:
            self._not_found(f"There is no pool {pool_id}.")
        elif verb == "health":
            self._reply(HTTPStatus.OK, health)
        elif verb == "logs":
            self._chunked("text/plain", self._log_pieces(follows=request.query["follow"] == ["true"]))
        else:
            if verb == "drain":
                msgspec.json.decode(request.body, type=DrainRequest)
            self.peer.change_pool(pool_id, draining=verb == "drain")
            self._reply(HTTPStatus.ACCEPTED, PoolChange(pool_id=pool_id, draining=verb == "drain"))

    def _submit(self, body: bytes) -> None:
        task = msgspec.json.decode(body, type=SubmitTask)
        with self.peer.changed:
            known = self.peer.tasks.setdefault(task.task_id, Task(task, str(uuid.uuid4())))
            self.peer.changed.notify_all()
        if self.peer.submits_broken:
            self.peer.submits_broken -= 1
            self.close_connection = True
            return
        if self.peer.answer is not None and not known.frames:
            self.peer.start(task.task_id)
            for text in self.peer.answer:
                self.peer.say(task.task_id, text)
            self.peer.end(task.task_id)
        accepted = Accepted(task_id=task.task_id, job_id=known.job_id, queue_position=2, predicted_start_ms=None)
        self._reply(HTTPStatus.ACCEPTED, accepted)

    def _task(self, task_id: str, rest: list[str]) -> None:
        task = self.peer.tasks.get(task_id)
        if task is None:
            self._not_found(f"There is no task {task_id}.")
        elif rest == ["stream"]:
            self._chunked("text/event-stream", self._frames(task, int(self.headers.get("Last-Event-ID", 0))))
        elif rest == ["cancel"]:
            if not task.is_over:
                self.peer.end(task_id, FinishReason.CANCELED)
            self.send_response(HTTPStatus.NO_CONTENT)
            self.send_header("X-Tokens-Emitted", str(task.tokens))
            self.end_headers()
        else:
            self._reply(HTTPStatus.OK, _view(task))

    def _frames(self, task: Task, after: int) -> Iterator[bytes]:
        """The frames behind the one with this number, as they come; the connection breaks where the test says so."""
        yield COMMENT
        sent = after
        until = self.peer.breaks_after.pop(0) if self.peer.breaks_after else None

        def has_news() -> bool:
            return len(task.frames) > sent or task.is_over

        while True:
            with self.peer.changed:
                self.peer.changed.wait_for(has_news, WAIT_S_MAX)
                if len(task.frames) == sent:
                    return
                frame = task.frames[sent]
            if until is not None and sent >= until:
                raise ConnectionAbortedError
            sent += 1
            yield frame

    def _log_pieces(self, *, follows: bool) -> Iterator[bytes]:
        sent = 0

        def has_news() -> bool:
            return len(self.peer.log_pieces) > sent or not (follows and self.peer.is_log_open)

        while True:
            with self.peer.changed:
                self.peer.changed.wait_for(has_news, WAIT_S_MAX)
                if len(self.peer.log_pieces) == sent:
                    return
                piece = self.peer.log_pieces[sent]
            sent += 1
            yield piece

    def _chunked(self, media_type: str, pieces: Iterator[bytes]) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", media_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for piece in pieces:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:
            self.close_connection = True

    def _reply(self, status: int, reply: object) -> None:
        body = msgspec.json.encode(reply)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _not_found(self, message: str) -> None:
        self._refuse(HTTPStatus.NOT_FOUND, refusal(Code.INVALID_PARAMS, message, reason=Reason.NOT_FOUND))

    def _refuse(self, status: int, envelope: ErrorEnvelope) -> None:
        self._reply(status, envelope)


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """One thread for each connection; none of them holds the test back at its end."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A reader that left is no error of the peer."""


@contextmanager
def serving(path: Path) -> Iterator[Peer]:
    """A peer that answers at this path until the block is left."""
    peer = Peer(path)
    handler = type("BoundHandler", (Handler,), {"peer": peer})
    with Server(str(path), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield peer
        finally:
            server.shutdown()
            thread.join()
            path.unlink(missing_ok=True)


def _view(task: Task) -> TaskView:
    return TaskView(
        task_id=task.submitted.task_id,
        job_id=task.job_id,
        state="ended" if task.is_over else "running" if task.frames else "waiting",
        priority=task.submitted.priority,
        engine=Engine(task.submitted.engine),
        model_ref=task.submitted.model_ref,
        attempt=1,
        age_ms=10,
        deadline_remaining_ms=1_000,
        queue_position=None if task.frames else 2,
        predicted_start_ms=None if task.frames else 4_000,
        pool_id="small" if task.frames else None,
        tokens_emitted=task.tokens,
    )
