"""SSE frames of a task's stream (ORCH-2002): encoded once, as bytes, for every reader and for replay.

A frame is `id:` (its sequence), `event:` and one compact `data:` line, all ended by LF. JSON escapes CR, LF and NUL, so
no text of a model can break the framing. The sequence numbers `started` 1, token `i` as `i + 2` and the terminal event
last, so that a re-run of a deterministic task gives every frame its old number. `metrics` frames repeat the number of
the frame before them: they are dropped first under pressure, and a reader that resumes after one misses nothing.
"""

import msgspec
from msgspec import UNSET, Struct, UnsetType

from supervisor.wire.codes import FinishReason
from supervisor.wire.errors import ErrorEnvelope
from supervisor.wire.outputs import Outputs

COMMENT = b": waiting\n\n"
SEQ_STARTED = 1
SEQ_FIRST_TOKEN = 2

_encode = msgspec.json.Encoder().encode


class Started(Struct, kw_only=True):
    """The `started` event, once, at dispatch to a slot; position and prediction are those of the admission."""

    queue_position: int
    predicted_start_ms: int | None
    queue_time_ms: int
    pool_id: str
    replica_id: str
    engine_version: str
    model_digest: str
    kv_warmth: bool


class StreamMetrics(Struct, kw_only=True):
    """The periodic `metrics` event, at most one a second."""

    tokens_out: int
    tokens_per_s: float
    elapsed_ms: int


class End(Struct, kw_only=True):
    """The `end` event. `outputs` is there for embedding and rerank tasks alone, and is all that they deliver.

    `decode_ms` of such a task is the time from dispatch to its answer; its `tokens_out` is 0.
    """

    tokens_out: int
    decode_ms: int
    finish_reason: FinishReason
    tokens_in: int | None
    kv_warmth: bool
    kv_migrated: bool
    outputs: Outputs | UnsetType = UNSET


def token_frame(text: str, index: int) -> bytes:
    """The frame of token `index`, counted from 0."""
    return b'id: %d\nevent: token\ndata: {"t":%b,"i":%d}\n\n' % (index + SEQ_FIRST_TOKEN, _encode(text), index)


def started_frame(started: Started) -> bytes:
    """The first frame of every stream."""
    return b"id: 1\nevent: started\ndata: %b\n\n" % _encode(started)


def metrics_frame(metrics: StreamMetrics, seq: int) -> bytes:
    """A transient frame; `seq` is that of the last lasting frame."""
    return b"id: %d\nevent: metrics\ndata: %b\n\n" % (seq, _encode(metrics))


def end_frame(end: End, seq: int) -> bytes:
    """The terminal frame of a task that ended."""
    return b"id: %d\nevent: end\ndata: %b\n\n" % (seq, _encode(end))


def error_frame(error: ErrorEnvelope, seq: int) -> bytes:
    """The terminal frame of a task that failed."""
    return b"id: %d\nevent: error\ndata: %b\n\n" % (seq, _encode(error))
