"""The words of the journal: what is written, what is reported, what is restored. No I/O.

Wall-clock times are milliseconds since the epoch; they only ever leave the process through a restart.
"""

from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct


class Durability(StrEnum):
    """What an acknowledged record survives: FULL a power loss (fdatasync first), NORMAL the daemon's death only."""

    FULL = "full"
    NORMAL = "normal"


class AcceptRecord(Struct, frozen=True, kw_only=True, gc=False):
    """An accepted task. `body`: its canonical request with the prompt; `body_digest` parts a repeat from a conflict."""

    job_id: str
    tenant: str
    task_id: str
    session_id: str
    priority: str
    body: bytes
    body_digest: bytes
    accepted_wall_ms: int
    deadline_wall_ms: int
    queue_position: int
    predicted_start_ms: int | None
    client_id: str = ""
    set_kind: str = ""
    """The kind of replica set that it was admitted to; records of before have none."""


class AttemptRecord(Struct, frozen=True, kw_only=True, gc=False):
    """The task was given to a worker for the `attempt`-th time, counted from 1."""

    job_id: str
    attempt: int
    wall_ms: int


class FinishState(StrEnum):
    """How a task ended."""

    ENDED = "ended"
    FAILED = "failed"


class FinishRecord(Struct, frozen=True, kw_only=True, gc=False):
    """A task reached its end. `summary` is the JSON of its result or error, `frames` its whole stream as SSE."""

    job_id: str
    finished_wall_ms: int
    state: FinishState
    summary: bytes
    frames: bytes


class ForgetRecord(Struct, frozen=True, kw_only=True):
    """The retention of these finished tasks is over. A thousand at a time: they are erased in one transaction."""

    job_ids: tuple[str, ...]


Record: TypeAlias = AcceptRecord | AttemptRecord | FinishRecord | ForgetRecord


class Fault(StrEnum):
    """What the disk did. A DAMAGED file is set aside and rebuilt from what can be read; the others are waited out."""

    DISK_FULL = "disk_full"
    IO = "io"
    READONLY = "readonly"
    DAMAGED = "damaged"


class NotTaken(StrEnum):
    """Why a record was not taken: the bound is reached, the disk is in trouble (accepts only), or it is too late."""

    FULL = "full"
    NOT_WRITABLE = "not_writable"
    CLOSED = "closed"


class Damage(Struct, frozen=True, kw_only=True):
    """A damaged journal was set aside. `rows_torn` were read but not whole; those on unreadable pages nobody counts.

    `log_frames_torn` pages of its log were not whole, with whole ones behind them.
    """

    detail: str
    quarantined: str
    waiting_salvaged: int
    finished_salvaged: int
    rows_torn: int
    log_frames_torn: int = 0


class Committed(Struct, frozen=True, kw_only=True):
    """One batch is as durable as was asked for: these tasks are accepted, those are finished."""

    accepted: tuple[str, ...]
    finished: tuple[str, ...]


class CommitFailed(Struct, frozen=True, kw_only=True):
    """The journal cannot be written now. The accepts are void; `kept` other records are tried again until they hold."""

    fault: Fault
    detail: str
    rejected: tuple[str, ...]
    kept: int


class RecordRefused(Struct, frozen=True, kw_only=True):
    """One record can never be stored, whatever the disk does: a bug of ours. The rest of its batch was committed."""

    record: Record
    detail: str


class WritableAgain(Struct, frozen=True, kw_only=True):
    """A probe has succeeded and everything kept has been written. `damage`: what it took."""

    damage: Damage | None


class JournalDied(Struct, frozen=True, kw_only=True):
    """The writer thread ended by a bug: nothing can be accepted any more."""

    detail: str
    rejected: tuple[str, ...]


Report: TypeAlias = Committed | CommitFailed | RecordRefused | WritableAgain | JournalDied


class RestoredTask(Struct, frozen=True, kw_only=True, gc=False):
    """An accepted task that had not ended, with the attempts made so far, oldest first."""

    accept: AcceptRecord
    attempts: tuple[AttemptRecord, ...]


class FinishedTask(Struct, frozen=True, kw_only=True, gc=False):
    """A finished task within its retention. `accept.body` is empty: a prompt is not kept beyond its task."""

    accept: AcceptRecord
    attempts: int
    finish: FinishRecord


class Restored(Struct, frozen=True, kw_only=True):
    """What an earlier run left: `unfinished` in the order of acceptance, `finished` in the order of finishing."""

    unfinished: list[RestoredTask]
    finished: list[FinishedTask]
    damage: Damage | None
