"""What the relay is asked and what it reports: orders, facts and counters. Nothing here acts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from adapters.base import EngineRequest, Finished, StreamDecoder
from supervisor.runtime.engine_http import EngineHttp
from supervisor.runtime.tasklog import TaskLog


class RunFault(StrEnum):
    """Why a run failed. Decides between an error for the caller, a re-run and a new worker."""

    UNREACHABLE = "unreachable"
    """No connection: the engine never saw the request."""
    ENGINE_LOST = "engine_lost"
    """The connection ended before the engine's own end; EOF proves nothing."""
    ENGINE_ERROR = "engine_error"
    CLIENT_ERROR = "client_error"
    BUSY = "busy"
    GARBAGE = "garbage"
    """Not HTTP, or more than a completion may hold."""
    DIVERGED = "diverged"
    """A re-run of a deterministic task gave other tokens than those already streamed."""


class Stall(StrEnum):
    """Which bound passed without a token."""

    FIRST_TOKEN = "first_token"  # noqa: S105  (a token of text)
    IDLE = "idle"


@dataclass(slots=True)
class TokenMeter:
    """Tokens relayed for one pool, over all its workers; the metrics page reads it."""

    tokens_total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrder:
    """One run of one task on one engine.

    `decoder` makes the decoder for the answer's HTTP status (`Adapter.decoder`). `idle_ms` bounds the time between
    tokens, from the first one on; `first_token_ms` the time to the first, None for no bound but the caller's wall.
    `tokens_max` is what was asked of the engine.
    """

    job_id: str
    run_id: int
    engine: EngineHttp
    request: EngineRequest
    decoder: Callable[[int], StreamDecoder]
    log: TaskLog
    idle_ms: int
    first_token_ms: int | None
    tokens_max: int
    meter: TokenMeter = field(default_factory=TokenMeter)


@dataclass(frozen=True, slots=True)
class RunTally:
    """Where an aborted run stood. `tokens_emitted` counts token frames of the log, `tokens_out` the engine's tokens."""

    tokens_emitted: int
    tokens_out: int
    tokens_in: int | None
    decode_ms: float


class RunSink(Protocol):
    """Told of each run's facts, synchronously, on the event loop; never from within `Relay.start` or `Relay.abort`.

    `run_first_token` comes at most once, then exactly one of `run_finished`, `run_failed` and `run_stalled`, unless the
    run is aborted first. `tokens_emitted` counts token frames of the log. The sink may call the relay from within.
    """

    def run_first_token(self, job_id: str, run_id: int) -> None:
        """The first token is in the log."""

    def run_finished(self, job_id: str, run_id: int, finished: Finished, tokens_emitted: int, decode_ms: float) -> None:
        """The engine said that the answer is complete. `decode_ms` is the engine's own time where it gives one."""

    def run_failed(self, job_id: str, run_id: int, kind: RunFault, message: str, tokens_emitted: int) -> None:
        """The run is over without an end of the engine's; its connection is closed."""

    def run_stalled(self, job_id: str, run_id: int, which: Stall) -> None:
        """No token in time. The connection is closed; `Relay.abort` gives the tally and forgets the run."""
