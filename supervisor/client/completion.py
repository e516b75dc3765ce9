"""A task's stream as one answer. Decides nothing about connections; a task that failed is an error here."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from msgspec import UNSET, Struct

from supervisor.client.errors import NetworkError, ProtocolError, TaskFailedError
from supervisor.client.frames import StreamEvent, Token
from supervisor.wire.errors import ErrorEnvelope
from supervisor.wire.frames import End, Started
from supervisor.wire.tasks import Accepted

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished task. `started` is None where it ended without a slot: cancelled while it waited."""

    accepted: Accepted
    started: Started | None
    text: str
    end: End


class Embedding(Struct, frozen=True):
    """The vector of input `index`, of length 1."""

    index: int
    embedding: list[float]


class Score(Struct, frozen=True):
    """How well document `index` fits the query, counted from 0 without the query; higher fits better."""

    index: int
    score: float


async def collect(accepted: Accepted, events: AsyncIterator[StreamEvent]) -> Completion:
    """Read to the terminal event. Raises TaskFailedError where that is an error, and what the stream raises."""
    started: Started | None = None
    pieces: list[str] = []
    async for event in events:
        if isinstance(event, Token):
            pieces.append(event.t)
        elif isinstance(event, Started):
            started = event
        elif isinstance(event, End):
            return Completion(accepted, started, "".join(pieces), event)
        elif isinstance(event, ErrorEnvelope):
            raise TaskFailedError(event)
    raise NetworkError("the stream ended before the task did")


def outputs_of(end: End, shape: type[T]) -> list[T]:
    """What an embedding or rerank delivered. Empty where it was cancelled. Raises ProtocolError."""
    if end.outputs is UNSET:
        return []
    try:
        return msgspec.json.decode(end.outputs, type=list[shape])  # type: ignore[valid-type]
    except msgspec.DecodeError as error:
        raise ProtocolError(f"outputs that this version cannot read: {error}") from None
