"""How records lie in the rows of the journal: packed, with a checksum on everything, for SQLite itself has none.

`meta` is an accepted task without its body and `outcome` a finish without its frames, both sealed by a CRC; the CRCs of
body and frames stand inside them. New fields are added at the end, with a default. No I/O.
"""

from collections.abc import Iterator, Sequence
from typing import TypeAlias, TypeVar
from zlib import crc32

import msgspec
from msgspec import Struct

from supervisor.runtime.journal.faults import DamagedError
from supervisor.runtime.journal.records import AcceptRecord, FinishedTask, FinishRecord, FinishState

Value: TypeAlias = int | bytes | None
Row: TypeAlias = tuple[Value, ...]
T = TypeVar("T")

ROWS_PER_STATEMENT = (64, 8, 1)
"""One statement for many rows: each step of SQLite hands the GIL over twice. Measured: 10-15 % more accepts."""

_CRC_BYTES = 4


class _Meta(Struct, frozen=True, array_like=True, gc=False):
    job_id: str
    tenant: str
    task_id: str
    session_id: str
    priority: str
    body_digest: bytes
    accepted_wall_ms: int
    deadline_wall_ms: int
    queue_position: int
    predicted_start_ms: int | None
    body_crc: int
    client_id: str = ""
    set_kind: str = ""


class _Outcome(Struct, frozen=True, array_like=True, gc=False):
    finished_wall_ms: int
    state: FinishState
    summary: bytes
    frames_crc: int


_pack = msgspec.msgpack.Encoder().encode
_unpack_meta = msgspec.msgpack.Decoder(_Meta).decode
_unpack_outcome = msgspec.msgpack.Decoder(_Outcome).decode


def pack_accept(accept: AcceptRecord) -> tuple[bytes, bytes]:
    """The columns `meta, body`."""
    meta = _Meta(
        accept.job_id,
        accept.tenant,
        accept.task_id,
        accept.session_id,
        accept.priority,
        accept.body_digest,
        accept.accepted_wall_ms,
        accept.deadline_wall_ms,
        accept.queue_position,
        accept.predicted_start_ms,
        crc32(accept.body),
        accept.client_id,
        accept.set_kind,
    )
    return _seal(_pack(meta)), accept.body


def unpack_accept(meta: Value, body: Value) -> AcceptRecord:
    """The accepted task of a row.

    Raises:
        DamagedError: a column is not what was written.
    """
    found = _meta_of(meta)
    if not isinstance(body, bytes) or crc32(body) != found.body_crc:
        raise DamagedError(f"the body of job {found.job_id} is not whole")
    return _accept(found, body)


def pack_finish(finish: FinishRecord) -> tuple[bytes, bytes]:
    """The columns `outcome, frames`."""
    outcome = _Outcome(finish.finished_wall_ms, finish.state, finish.summary, crc32(finish.frames))
    return _seal(_pack(outcome)), finish.frames


def unpack_finished(meta: Value, attempts: Value, outcome: Value, frames: Value) -> FinishedTask:
    """The finished task of a row.

    Raises:
        DamagedError: a column is not what was written.
    """
    accept = _accept(_meta_of(meta), b"")
    found = _outcome_of(outcome)
    if not isinstance(attempts, int) or not isinstance(frames, bytes) or crc32(frames) != found.frames_crc:
        raise DamagedError(f"the stream of job {accept.job_id} is not whole")
    finish = FinishRecord(
        job_id=accept.job_id,
        finished_wall_ms=found.finished_wall_ms,
        state=found.state,
        summary=found.summary,
        frames=frames,
    )
    return FinishedTask(accept=accept, attempts=attempts, finish=finish)


def in_chunks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """The rows in pieces of the lengths in `ROWS_PER_STATEMENT`, so that few statements are ever compiled."""
    start = 0
    for length in ROWS_PER_STATEMENT:
        while len(rows) - start >= length:
            yield rows[start : start + length]
            start += length


def _accept(meta: _Meta, body: bytes) -> AcceptRecord:
    return AcceptRecord(
        job_id=meta.job_id,
        tenant=meta.tenant,
        task_id=meta.task_id,
        session_id=meta.session_id,
        priority=meta.priority,
        body=body,
        body_digest=meta.body_digest,
        accepted_wall_ms=meta.accepted_wall_ms,
        deadline_wall_ms=meta.deadline_wall_ms,
        queue_position=meta.queue_position,
        predicted_start_ms=meta.predicted_start_ms,
        client_id=meta.client_id,
        set_kind=meta.set_kind,
    )


def _seal(data: bytes) -> bytes:
    return crc32(data).to_bytes(_CRC_BYTES, "little") + data


def _unseal(column: Value) -> bytes:
    if not isinstance(column, bytes) or len(column) < _CRC_BYTES:
        raise DamagedError("a row has a column of the wrong kind")
    data = column[_CRC_BYTES:]
    if crc32(data) != int.from_bytes(column[:_CRC_BYTES], "little"):
        raise DamagedError("a row fails its checksum")
    return data


def _meta_of(column: Value) -> _Meta:
    try:
        return _unpack_meta(_unseal(column))
    except msgspec.DecodeError as error:
        raise DamagedError("a task cannot be unpacked") from error


def _outcome_of(column: Value) -> _Outcome:
    try:
        return _unpack_outcome(_unseal(column))
    except msgspec.DecodeError as error:
        raise DamagedError("an outcome cannot be unpacked") from error
