"""What happened: the only way anything reaches the core. Past tense; plain values; no I/O objects.

Reports about a worker carry its incarnation, those about a run its run id: a late report of a dead one changes nothing.
"""

from msgspec import Struct

from supervisor.core.intent import Intent
from supervisor.core.replicas import FoundEngine
from supervisor.core.split import Split
from supervisor.core.tasks import Task
from supervisor.wire.codes import Engine, FinishReason


class TaskSubmitted(Struct, frozen=True):
    """A parsed, authenticated task. Its `job_id` is fresh and serves as the ticket of the answer."""

    task: Task


class TokensCounted(Struct, frozen=True):
    """The engine tokenized the prompt; None where it could not within its time."""

    job_id: str
    tokens: int | None


class AcceptsCommitted(Struct, frozen=True):
    """These records are on disk, in this order."""

    job_ids: tuple[str, ...]


class AcceptsFailed(Struct, frozen=True):
    """These records did not reach the disk."""

    job_ids: tuple[str, ...]


class FinishesCommitted(Struct, frozen=True):
    """These ends are on disk and their terminal frames published; `log_bytes` is what each stream keeps in memory."""

    job_ids: tuple[str, ...]
    log_bytes: tuple[int, ...]


class JournalChanged(Struct, frozen=True):
    """The disk takes records, or does not any more."""

    is_writable: bool
    cause: str | None


class CancelRequested(Struct, frozen=True):
    """A caller wants a task ended. The answer goes to `ticket`."""

    ticket: str
    job_id: str


class ReadersLeft(Struct, frozen=True):
    """The last reader of a task's stream is gone."""

    job_id: str


class ReadersCame(Struct, frozen=True):
    """A task's stream has a reader again."""

    job_id: str


class FirstTokenCame(Struct, frozen=True):
    """The engine gave the first token of a run."""

    run_id: int


class RunFinished(Struct, frozen=True):
    """The engine said that the answer is complete. `tokens_cached` of the prompt were taken from KV that was there."""

    run_id: int
    finish_reason: FinishReason
    tokens_in: int | None
    tokens_out: int
    emitted: int
    decode_ms: float
    tokens_cached: int = 0


class RunFailed(Struct, frozen=True):
    """A run ended without the engine's end. `is_client_fault`: the engine refused the request itself.

    `is_worker_lost`: the connection or the process is gone, so another worker may do better. `is_busy`: the engine has
    no room for it now. `is_unseen`: the request never reached the worker that is lost, so that the task cannot have
    been its end. `reason` is a fixed word.
    """

    run_id: int
    reason: str
    message: str
    emitted: int
    is_client_fault: bool = False
    is_worker_lost: bool = False
    is_busy: bool = False
    is_unseen: bool = False


class RunStalled(Struct, frozen=True):
    """No token came for the idle or the first-token bound."""

    run_id: int
    which: str


class RunAborted(Struct, frozen=True):
    """The answer to AbortRun: nothing more of this run will reach a stream."""

    run_id: int
    tokens_in: int | None
    tokens_out: int
    emitted: int
    decode_ms: float


class SlotsSeenIdle(Struct, frozen=True):
    """The engine no longer works on these aborted runs."""

    pool_id: str
    incarnation: int
    run_ids: tuple[int, ...]


class SlotStuck(Struct, frozen=True):
    """The engine still works on an aborted run after its time."""

    pool_id: str
    incarnation: int
    run_id: int


class DeviceSeen(Struct, frozen=True):
    """One GPU of the inventory. `vram_free_mib` is rounded down coarsely: it decides between equals only."""

    uuid: str
    index: int
    name: str
    vram_total_mib: int
    vram_free_mib: int = 0


class DevicesSeen(Struct, frozen=True):
    """A complete inventory."""

    devices: tuple[DeviceSeen, ...]


class DevicesUnknown(Struct, frozen=True):
    """There is no inventory: no driver, no library, no answer. One sentence. Running workers are left alone."""

    cause: str


class ModelVerified(Struct, frozen=True):
    """The model file has the digest that it should have."""

    pool_id: str
    incarnation: int
    model_digest: str


class DeviceRoom(Struct, frozen=True):
    """One GPU of a worker's mask: what it has, what is free now, and what the worker will take of it. MiB."""

    uuid: str
    total_mib: int
    free_mib: int
    need_mib: int


class RoomMeasured(Struct, frozen=True):
    """What is free, and what the model, its KV cache and its buffers are estimated to take (ORCH-3003). MiB."""

    pool_id: str
    incarnation: int
    devices: tuple[DeviceRoom, ...]
    host_free_mib: int
    host_need_mib: int


class EnginesFound(Struct, frozen=True):
    """Engines that outlived their daemon; before anything else happens to their pools."""

    engines: tuple[FoundEngine, ...]


class IntentRestored(Struct, frozen=True):
    """What operators asked of an earlier daemon; `shift_ms` is to be added to its times."""

    intent: Intent
    shift_ms: float


class EngineSpawned(Struct, frozen=True):
    """The process runs: started, or adopted."""

    pool_id: str
    incarnation: int
    pid: int
    port: int


class EngineHealthy(Struct, frozen=True):
    """It answers that it is up."""

    pool_id: str
    incarnation: int


class EngineInspected(Struct, frozen=True):
    """It said what it is, with our key (ORCH-3032). `ctx_per_slot` is in tokens."""

    pool_id: str
    incarnation: int
    engine_version: str
    slots: int
    ctx_per_slot: int


class StepPassed(Struct, frozen=True):
    """One named step of the self-test passed."""

    pool_id: str
    incarnation: int
    name: str
    took_ms: float
    detail: str | None = None


class EngineTested(Struct, frozen=True):
    """All steps of the self-test passed."""

    pool_id: str
    incarnation: int


class StepFailed(Struct, frozen=True):
    """The step under way failed; `cause` is one sentence for the operator."""

    pool_id: str
    incarnation: int
    cause: str


class EngineExited(Struct, frozen=True):
    """The process is gone. `kind` is an exit kind, `cause` one sentence."""

    pool_id: str
    incarnation: int
    kind: str
    cause: str


class EngineStopped(Struct, frozen=True):
    """A stop that was asked for is complete: the process and all that it left behind are gone."""

    pool_id: str
    incarnation: int


class SessionEndRequested(Struct, frozen=True):
    """A caller is done with a session: its KV is to be evicted."""

    tenant: str
    session: bytes


class DrainRequested(Struct, frozen=True):
    """An operator takes a pool out of service."""

    pool_id: str
    deadline_ms: float


class ResumeRequested(Struct, frozen=True):
    """An operator puts a pool back into service, and retries now what waits or is broken."""

    pool_id: str


class SplitRequested(Struct, frozen=True):
    """A canary is to take a share of an alias, another share, or none any more (ORCH-3033)."""

    engine: Engine
    model_ref: str
    split: Split | None


class HaltRequested(Struct, frozen=True):
    """The daemon is to stop within `deadline_ms`. A second one with 0 stops at once."""

    deadline_ms: float


class TasksRestored(Struct, frozen=True):
    """Read from the journal at start: unfinished tasks in their old order; finished ones, oldest first.

    Each finished one comes with the bytes that its stream keeps. An unfinished one comes with its runs so far and the
    tokens that it is known to have emitted; `silent` names those that are known to have emitted none.
    """

    unfinished: tuple[Task, ...]
    finished: tuple[tuple[Task, int], ...]
    silent: tuple[str, ...] = ()


class TimePassed(Struct, frozen=True):
    """The moment that `next_due_ms` named has come."""


Event = (
    TaskSubmitted
    | TokensCounted
    | AcceptsCommitted
    | AcceptsFailed
    | FinishesCommitted
    | JournalChanged
    | CancelRequested
    | ReadersLeft
    | ReadersCame
    | FirstTokenCame
    | RunFinished
    | RunFailed
    | RunStalled
    | RunAborted
    | SlotsSeenIdle
    | SlotStuck
    | DevicesSeen
    | DevicesUnknown
    | ModelVerified
    | RoomMeasured
    | EnginesFound
    | IntentRestored
    | EngineSpawned
    | EngineHealthy
    | EngineInspected
    | StepPassed
    | EngineTested
    | StepFailed
    | EngineExited
    | EngineStopped
    | SessionEndRequested
    | DrainRequested
    | ResumeRequested
    | SplitRequested
    | HaltRequested
    | TasksRestored
    | TimePassed
)
