"""Takes a task's events and makes an answer of them. Decides what the figures are; who listens, shows them."""

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec import UNSET, Struct, field

from supervisor.wire.codes import FinishReason
from supervisor.wire.errors import ErrorEnvelope
from supervisor.wire.frames import End, Started, StreamMetrics

if TYPE_CHECKING:
    from supervisor.client.frames import Frame


class Answer(Struct, kw_only=True):
    """Everything about one finished task, as `-o json` prints it. Times are milliseconds; null where unknown.

    `outputs` is what an embedding or rerank delivers in place of text.

    `first_token_ms` is measured here, from handing in to the first token. `state` is ended, canceled or failed.
    """

    task_id: str
    job_id: str
    state: str = "running"
    text: str = ""
    finish_reason: FinishReason | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    queue_time_ms: int | None = None
    first_token_ms: int | None = None
    decode_ms: int | None = None
    pool_id: str | None = None
    replica_id: str | None = None
    engine_version: str | None = None
    model_digest: str | None = None
    kv_warmth: bool | None = None
    outputs: list[dict[str, Any]] | None = None
    error: ErrorEnvelope | None = None


class Listener(Protocol):
    """Who wants to see the answer while it grows."""

    def on_frame(self, frame: "Frame") -> None:
        """Any event."""

    def on_started(self, started: Started) -> None:
        """The task has a slot."""

    def on_token(self, text: str) -> None:
        """Some more text."""


class Collector(Struct):
    """The pieces of one answer. `asked_at_s` is when the task was handed in, on the clock `now_s`."""

    answer: Answer
    listener: Listener
    asked_at_s: float
    now_s: Callable[[], float] = time.monotonic
    pieces: list[str] = field(default_factory=list)

    def take(self, frames: Iterable["Frame"]) -> Answer:
        """Read to the terminal event."""
        for frame in frames:
            self.listener.on_frame(frame)
            self._take_one(frame)
        self.answer.text = "".join(self.pieces)
        return self.answer

    def _take_one(self, frame: "Frame") -> None:
        match frame.event:
            case Started() as started:
                self._take_started(started)
            case End() as end:
                self._take_end(end)
            case ErrorEnvelope() as error:
                self.answer.error = error
                self.answer.state = "failed"
            case StreamMetrics():
                pass
            case token:
                self._take_token(token.t)

    def _take_token(self, text: str) -> None:
        if not self.pieces:
            self.answer.first_token_ms = round((self.now_s() - self.asked_at_s) * 1_000)
        self.pieces.append(text)
        self.listener.on_token(text)

    def _take_started(self, started: Started) -> None:
        self.answer.queue_time_ms = started.queue_time_ms
        self.answer.pool_id = started.pool_id
        self.answer.replica_id = started.replica_id
        self.answer.engine_version = started.engine_version
        self.answer.model_digest = started.model_digest
        self.listener.on_started(started)

    def _take_end(self, end: End) -> None:
        self.answer.finish_reason = end.finish_reason
        self.answer.tokens_in = end.tokens_in
        self.answer.tokens_out = end.tokens_out
        self.answer.decode_ms = end.decode_ms
        self.answer.kv_warmth = end.kv_warmth
        if end.outputs is not UNSET:
            self.answer.outputs = msgspec.json.decode(end.outputs)
        self.answer.state = "canceled" if end.finish_reason is FinishReason.CANCELED else "ended"


def summary(answer: Answer, separator: str) -> str:
    """One line of figures: tokens, tokens per second, time to the first one, why it ended."""
    if answer.outputs is not None:
        return f"{len(answer.outputs)} outputs of {answer.tokens_in or 0} tokens"
    parts = [f"{answer.tokens_out or 0} tokens"]
    if answer.tokens_out and answer.decode_ms:
        parts.append(f"{answer.tokens_out * 1_000 / answer.decode_ms:.1f} tok/s")
    if answer.first_token_ms is not None:
        parts.append(f"first token {answer.first_token_ms} ms")
    if answer.finish_reason is FinishReason.LENGTH:
        parts.append("cut at --max-tokens")
    return f" {separator} ".join(parts)
