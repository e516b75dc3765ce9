"""The frames of one task's stream, typed and each exactly once. Pure; it decides what is new, repeated or missing.

The numbers are those of `supervisor.wire.frames`: `started` is 1, token `i` is `i + 2`, the terminal frame is last.
1. `metrics` repeat the number of the frame before them: current with that number, stale with a lower one, and with a
   higher one a frame is missing.
2. A terminal frame with a number that was seen already is news all the same: the run that the first numbers are from
   was lost with its daemon, and this is how the task really ended.
3. An `error`, and an `end` of a cancelled task, are taken whatever their number: a daemon that was lost may leave
   numbers empty before them, and neither says that the tokens were the whole answer.
4. Any other frame with a number that was seen already is a repeat and left out.
5. A number, or a token's `i`, that is not the next one is a gap: the stream is not the whole answer.
Events of a kind that this version does not know are counted and otherwise left out: the API grows by addition.
"""

from dataclasses import dataclass
from typing import TypeVar

import msgspec
from msgspec import Struct

from supervisor.client.errors import ProtocolError, StreamGapError
from supervisor.client.sse import Event
from supervisor.wire.codes import FinishReason
from supervisor.wire.errors import ErrorEnvelope
from supervisor.wire.frames import SEQ_FIRST_TOKEN, End, Started, StreamMetrics

_SEQ_DIGITS_MAX = 19


class Token(Struct, frozen=True):
    """The `token` event: `t` is whole UTF-8, `i` counts from 0."""

    t: str
    i: int


StreamEvent = Started | Token | StreamMetrics | End | ErrorEnvelope
_SHAPES: dict[str, type[StreamEvent]] = {
    "started": Started,
    "token": Token,
    "metrics": StreamMetrics,
    "end": End,
    "error": ErrorEnvelope,
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Frame:
    """One event with its number and the JSON that it came as. `event` is what `name` says."""

    seq: int
    name: str
    data: bytes
    event: StreamEvent

    @property
    def is_terminal(self) -> bool:
        """Whether nothing follows."""
        return isinstance(self.event, End | ErrorEnvelope)


class FrameCursor:
    """Where a reader is in a stream, over any number of connections. `seq` is the last lasting frame; 0 for none."""

    def __init__(self, seq: int = 0) -> None:
        self.seq = seq

    def take(self, raw: Event) -> Frame | None:
        """The frame, or None for one that the reader has had. Raises StreamGapError and ProtocolError."""
        seq = _number(raw)
        if raw.name == "metrics":
            return self._metrics(raw, seq)
        shape = _SHAPES.get(raw.name)
        is_terminal = raw.name in {"end", "error"}
        if seq <= self.seq and not is_terminal:
            return None
        event = _decode(raw, shape) if shape is not None else None
        if seq > self.seq + 1 and not _is_cut_short(event):
            raise StreamGapError(_gap(raw.name, seq, self.seq + 1))
        self.seq = max(self.seq, seq)
        if event is None:
            return None
        if isinstance(event, Token) and event.i != seq - SEQ_FIRST_TOKEN:
            raise StreamGapError(f"token {event.i} came where {seq - SEQ_FIRST_TOKEN} was due")
        return Frame(seq, raw.name, raw.data, event)

    def _metrics(self, raw: Event, seq: int) -> Frame | None:
        if seq > self.seq:
            raise StreamGapError(f"frame {seq} is missing")
        return Frame(seq, raw.name, raw.data, _decode(raw, StreamMetrics)) if seq == self.seq else None


def _number(raw: Event) -> int:
    text = raw.id or ""
    if not (text.isascii() and text.isdigit() and len(text) <= _SEQ_DIGITS_MAX):
        raise ProtocolError(f"a {raw.name} event without a number")
    return int(text)


def _is_cut_short(event: StreamEvent | None) -> bool:
    """Whether this says that the task ended before its answer did."""
    if isinstance(event, End):
        return event.finish_reason is FinishReason.CANCELED
    return isinstance(event, ErrorEnvelope)


def _gap(name: str, seq: int, due: int) -> str:
    if name == "token" and due >= SEQ_FIRST_TOKEN:
        return f"token {seq - SEQ_FIRST_TOKEN} came where {due - SEQ_FIRST_TOKEN} was due"
    return f"frame {seq} came where {due} was due"


def _decode(raw: Event, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(raw.data, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"a {raw.name} event that this version cannot read: {error}") from None
