"""Frames of one small stream, as the daemon makes them."""

from supervisor.wire.codes import Code, FinishReason
from supervisor.wire.errors import ErrorEnvelope
from supervisor.wire.frames import (
    COMMENT,
    End,
    StreamMetrics,
    end_frame,
    error_frame,
    metrics_frame,
    started_frame,
    token_frame,
)
from tests.support.memory_service import STARTED

TEXTS = ("Hel", "lo\n\ndata: x", " wörld 漢", "🙂")


def frames(texts: tuple[str, ...] = TEXTS) -> list[bytes]:
    """The lasting frames: frame `n` stands at `n - 1`."""
    tokens = [token_frame(text, index) for index, text in enumerate(texts)]
    return [started_frame(STARTED), *tokens, ending(len(texts))]


def ending(tokens: int, seq: int | None = None) -> bytes:
    end = End(
        tokens_out=tokens,
        decode_ms=1,
        finish_reason=FinishReason.STOP,
        tokens_in=1,
        kv_warmth=False,
        kv_migrated=False,
    )
    return end_frame(end, tokens + 2 if seq is None else seq)


def metrics(seq: int) -> bytes:
    return metrics_frame(StreamMetrics(tokens_out=seq, tokens_per_s=1.5, elapsed_ms=3), seq)


def failure(seq: int, code: Code = Code.WORKER_RESET, *, retriable: bool = True) -> bytes:
    return error_frame(ErrorEnvelope(code=code, message="It broke.", retriable=retriable, correlation_id="c1"), seq)


def after(seq: int) -> bytes:
    """What the daemon sends to a reader that has the frames up to `seq`: a comment and metrics in between."""
    whole = frames()
    replayed = [part for number, frame in enumerate(whole, 1) if number > seq for part in (frame, COMMENT)]
    return COMMENT + b"".join(replayed)
