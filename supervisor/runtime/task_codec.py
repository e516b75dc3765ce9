"""Between the wire's task, the core's record and the journal's: the only place that knows all three."""

import hashlib
import sys
import time
import uuid
from zlib import crc32

import msgspec
from msgspec import Struct, structs

from supervisor.core.split import BUCKETS
from supervisor.core.tasks import WAITING, Accepting, Ended, Outcome, Task
from supervisor.runtime.caller import Caller
from supervisor.runtime.calls import pieces_of
from supervisor.runtime.journal.records import AcceptRecord, FinishedTask, FinishRecord, FinishState, RestoredTask
from supervisor.runtime.progress import Delivered
from supervisor.wire.codes import Determinism, Engine, KvHint, Priority, Workload
from supervisor.wire.tasks import SubmitTask

_encode = msgspec.json.Encoder(order="deterministic").encode
_decode_body = msgspec.json.Decoder(SubmitTask).decode

DIGEST_BYTES = 16
_SEED_MASK = 2**63 - 1


def wall_ms() -> int:
    """Milliseconds since the epoch: only for what outlives the process."""
    return time.time_ns() // 1_000_000


class EndSummary(Struct, frozen=True, kw_only=True):
    """What the journal keeps of an ended task beside its frames; its prompt is not kept."""

    outcome: Outcome
    engine: Engine
    model_ref: str


_decode_summary = msgspec.json.Decoder(EndSummary).decode


class RunPart(Struct, frozen=True, array_like=True, gc=False):
    """What of an accepted request is needed until it has run: all that a waiting task keeps of it in memory.

    The whole request is in the journal. 100,000 tasks may wait, and each byte here is kept for all of them.
    """

    session: bytes
    prompt: str
    seed: int
    stop: tuple[str, ...] = ()
    sampler: dict[str, float | int] = {}
    inputs: tuple[str, ...] = ()

    @property
    def session_id(self) -> str:
        """The caller's session."""
        return str(uuid.UUID(bytes=self.session))


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(RunPart).decode


def new_task(caller: Caller, job_id: str, wire: SubmitTask, default: Determinism, now_ms: float) -> tuple[Task, bytes]:
    """The core's record of a submitted task, and its canonical request for the journal.

    Canonical, so that a repeat gives the same digest. `default` is the determinism of the task's pool, for a task that
    does not say (ORCH-3045).
    """
    if not wire.determinism:
        wire = structs.replace(wire, determinism=default)
    request = _encode(wire)
    task = _task(caller.tenant, job_id, wire, request, now_ms, now_ms + wire.deadline_ms)
    task.client_id = caller.client_id
    task.bucket = bucket_of(wire.session_id)
    return task, request


def bucket_of(session_id: str) -> int:
    """On which side of a split alias a session is: spread evenly, and the same in every process."""
    return crc32(session_id.encode()) % BUCKETS


def _task(
    tenant: str,
    job_id: str,
    wire: SubmitTask,
    request: bytes,
    admitted_ms: float,
    deadline_at_ms: float,
) -> Task:
    """One-shot tasks generate nothing: their work is as long as their texts, each of which must fit by itself."""
    profile = wire.sampler_profile_version
    part = _run_part(wire)
    piece_bytes = [len(piece.encode()) for piece in pieces_of(wire.workload, part.prompt, part.inputs)]
    is_completion = wire.workload is Workload.COMPLETION
    return Task(
        job_id=job_id,
        tenant=tenant,
        task_id=wire.task_id,
        engine=wire.engine,
        model_ref=sys.intern(wire.model_ref),
        workload=wire.workload,
        sampler_profile_version=sys.intern(profile) if profile else None,
        ctx=wire.ctx,
        priority=wire.priority,
        determinism=wire.determinism or Determinism.STRICT,
        max_tokens=wire.max_tokens if is_completion else 0,
        expected_tokens=wire.expected_tokens or wire.max_tokens if is_completion else sum(piece_bytes),
        prompt_bytes=max(piece_bytes),
        size_bytes=len(request),
        body=_pack(part),
        digest=hashlib.blake2b(request, digest_size=DIGEST_BYTES).digest(),
        admitted_ms=admitted_ms,
        deadline_at_ms=deadline_at_ms,
        phase=Accepting(),
        session=_session_of(wire),
    )


def _session_of(wire: SubmitTask) -> bytes | None:
    """The session whose KV the task may use. Strict and reuse conflict: strict runs cold, and leaves it untouched."""
    is_best_effort = wire.determinism is Determinism.BEST_EFFORT and wire.workload is Workload.COMPLETION
    return uuid.UUID(wire.session_id).bytes if is_best_effort and wire.kv_hint is KvHint.REUSE else None


def _run_part(wire: SubmitTask) -> RunPart:
    """Strict and reuse of the KV cache conflict: strict runs cold. A prompt to be embedded is a single input."""
    prompt, inputs = wire.prompt or "", tuple(wire.inputs or ())
    if prompt and wire.workload is Workload.EMBEDDING:
        prompt, inputs = "", (prompt,)
    return RunPart(
        session=uuid.UUID(wire.session_id).bytes,
        prompt=prompt,
        seed=_seed_of(wire),
        stop=tuple(wire.stop or ()),
        sampler=wire.sampler_values(),
        inputs=inputs,
    )


def read_body(task: Task) -> RunPart:
    """What is needed to run a task that has not ended."""
    return _unpack(task.body)


def _seed_of(wire: SubmitTask) -> int:
    """The seed asked for, else one that follows from the task's id (spec §6.2)."""
    if isinstance(wire.seed, int):
        return wire.seed
    return int.from_bytes(hashlib.sha256(wire.task_id.encode()).digest()[:8], "big") & _SEED_MASK


def accept_record(task: Task, request: bytes, now_ms: float) -> AcceptRecord:
    """What goes to disk before the 202: `request` is the canonical one."""
    wall = wall_ms()
    return AcceptRecord(
        job_id=task.job_id,
        tenant=task.tenant,
        task_id=task.task_id,
        session_id=read_body(task).session_id,
        priority=task.priority,
        body=request,
        body_digest=task.digest,
        client_id=task.client_id,
        set_kind=task.set_kind,
        accepted_wall_ms=wall,
        deadline_wall_ms=wall + round(task.deadline_at_ms - now_ms),
        queue_position=task.queue_position,
        predicted_start_ms=task.predicted_start_ms,
    )


def finish_record(task: Task, outcome: Outcome, frames: bytes) -> FinishRecord:
    """What goes to disk before the terminal frame. The summary also keeps what views of the ended task show."""
    return FinishRecord(
        job_id=task.job_id,
        finished_wall_ms=wall_ms(),
        state=FinishState.FAILED if outcome.error else FinishState.ENDED,
        summary=_encode(EndSummary(outcome=outcome, engine=task.engine, model_ref=task.model_ref)),
        frames=frames,
    )


def restore_unfinished(found: RestoredTask, delivered: Delivered | None, now_ms: float) -> Task:
    """A task that an earlier daemon accepted and did not end; its deadline goes on counting while nobody runs.

    `delivered` is what is known of its stream. The last attempts may be missing in the journal: nothing waits for them.
    """
    accept = found.accept
    wire = _decode_body(accept.body)
    wall = wall_ms()
    task = _task(
        accept.tenant,
        accept.job_id,
        wire,
        accept.body,
        now_ms - (wall - accept.accepted_wall_ms),
        now_ms + (accept.deadline_wall_ms - wall),
    )
    task.phase = WAITING
    task.queue_position = accept.queue_position
    task.predicted_start_ms = accept.predicted_start_ms
    task.attempt = max((each.attempt for each in found.attempts), default=0)
    if delivered is not None:
        task.attempt = max(task.attempt, delivered.attempt)
        task.daemons_lost = delivered.daemons
        task.emitted = delivered.tokens
    task.client_id = sys.intern(accept.client_id)
    task.set_kind = sys.intern(accept.set_kind)
    task.bucket = bucket_of(wire.session_id)
    return task


def restore_finished(found: FinishedTask, now_ms: float) -> Task:
    """A task that ended: remembered for its retention. Its prompt was not kept; neither is anything of it needed."""
    accept = found.accept
    wall = wall_ms()
    summary = _decode_summary(found.finish.summary)
    return Task(
        job_id=accept.job_id,
        tenant=accept.tenant,
        task_id=accept.task_id,
        engine=summary.engine,
        model_ref=summary.model_ref,
        workload=Workload.COMPLETION,
        sampler_profile_version=None,
        ctx=0,
        priority=Priority(accept.priority),
        determinism=Determinism.STRICT,
        max_tokens=0,
        expected_tokens=0,
        prompt_bytes=0,
        size_bytes=0,
        body=b"",
        digest=accept.body_digest,
        admitted_ms=now_ms - (wall - accept.accepted_wall_ms),
        deadline_at_ms=now_ms + (accept.deadline_wall_ms - wall),
        phase=Ended(summary.outcome, now_ms - (wall - found.finish.finished_wall_ms)),
        attempt=found.attempts,
        queue_position=accept.queue_position,
        predicted_start_ms=accept.predicted_start_ms,
        client_id=sys.intern(accept.client_id),
    )
