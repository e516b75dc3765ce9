"""What is to be done: imperative, plain values. The runtime performs each; every slow one ends in an event."""

from msgspec import Struct

from supervisor.core.faults import EccKind, Fault
from supervisor.core.intent import Intent
from supervisor.core.needs import LearnedNeed
from supervisor.core.refusals import Refused
from supervisor.core.revisions import RolloutKind, RolloutOutcome
from supervisor.core.tasks import Outcome, Task


class CommitAccept(Struct, frozen=True):
    """Write the task's record. Ends in AcceptsCommitted or AcceptsFailed."""

    task: Task


class CommitAttempt(Struct, frozen=True):
    """Note on disk that this attempt began. Nothing waits for it."""

    job_id: str
    attempt: int


class CommitFinish(Struct, frozen=True):
    """Write how the task ended, then publish its terminal frame. Ends in FinishesCommitted."""

    task: Task
    outcome: Outcome


class DropLogs(Struct, frozen=True):
    """Free the streams of these finished tasks; their ids stay known."""

    job_ids: tuple[str, ...]


class Forget(Struct, frozen=True):
    """Delete all that is kept of these tasks, on disk too. `tasks` are (tenant, task_id)."""

    job_ids: tuple[str, ...]
    tasks: tuple[tuple[str, str], ...]


class AnswerAccepted(Struct, frozen=True):
    """Tell the caller that the task is accepted and on disk. `job_id` is an older one for a repeated submit."""

    ticket: str
    job_id: str
    task_id: str
    queue_position: int
    predicted_start_ms: int | None


class AnswerRefused(Struct, frozen=True):
    """Tell the caller why not."""

    ticket: str
    refused: Refused


class AnswerCancelled(Struct, frozen=True):
    """Tell the caller that the task is over and how many token frames it ever emitted."""

    ticket: str
    emitted: int


class CountTokens(Struct, frozen=True):
    """Ask a Ready worker how many tokens the prompt has. Ends in TokensCounted."""

    pool_id: str
    task: Task


class StartRun(Struct, frozen=True):
    """Publish `started` and send the task to the engine. Ends in RunFinished, RunFailed, RunStalled or RunAborted.

    `slot` is the engine's slot that the run must take, None for any. `kv_warmth`: the session's KV is in that slot.
    """

    task: Task
    run_id: int
    pool_id: str
    replica_id: str
    incarnation: int
    engine_version: str
    model_digest: str
    idle_ms: int
    first_token_ms: int | None
    slot: int | None = None
    kv_warmth: bool = False


class AbortRun(Struct, frozen=True):
    """Close the engine's request; nothing of the run may reach a stream any more. Ends in RunAborted, at once."""

    run_id: int


class ConfirmSlotIdle(Struct, frozen=True):
    """See that the engine stopped working on an aborted run. Ends in SlotsSeenIdle or SlotStuck."""

    pool_id: str
    incarnation: int
    run_id: int
    within_ms: int


class VerifyModel(Struct, frozen=True):
    """Check the model file's digest. Ends in ModelVerified or StepFailed."""

    pool_id: str
    incarnation: int


class MeasureRoom(Struct, frozen=True):
    """See what is free on these devices and the host, and what it will take. Ends in RoomMeasured or StepFailed."""

    pool_id: str
    incarnation: int
    devices: tuple[str, ...]


class AdoptEngine(Struct, frozen=True):
    """Take over the engine that was found running. Ends in EngineSpawned or StepFailed."""

    pool_id: str
    incarnation: int


class EndFoundEngine(Struct, frozen=True):
    """End the engine that was found running: nobody will adopt it."""

    pool_id: str


class ProbeEngine(Struct, frozen=True):
    """Ask an idle worker for a token after a fault of its GPU. Ends in EngineProbed."""

    pool_id: str
    incarnation: int
    cause: str


class NoteFault(Struct, frozen=True):
    """A GPU reported a fault: one line of the log, one step of the metrics. `ecc` is given for a memory error."""

    uuid: str
    fault: Fault
    kind: str
    ecc: EccKind | None
    source: str
    text: str | None
    pid: int | None


class NoteRecovery(Struct, frozen=True):
    """A GPU that was withheld is given back: one line of the log. `cause` is why it was withheld."""

    uuid: str
    cause: str


class CommitIntent(Struct, frozen=True):
    """Write down what operators asked for, whole. Nothing waits for it."""

    intent: Intent


class AnswerLease(Struct, frozen=True):
    """Tell the caller that the lease is begun."""

    ticket: str
    lease_id: str


class VerifyRelease(Struct, frozen=True):
    """See that nothing of ours holds memory on these GPUs any more. Ends in ReleaseVerified within `within_ms`."""

    lease_id: str
    devices: tuple[str, ...]
    within_ms: int


class NoteLease(Struct, frozen=True):
    """A lease came further or ended: one line of the log."""

    lease_id: str
    phase: str
    cause: str | None


class CommitNeeds(Struct, frozen=True):
    """Write down what was learned about needs, whole. Nothing waits for it."""

    entries: tuple[LearnedNeed, ...]


class SpawnEngine(Struct, frozen=True):
    """Start the process on these device UUIDs. Ends in EngineSpawned or StepFailed."""

    pool_id: str
    incarnation: int
    devices: tuple[str, ...]


class AwaitHealth(Struct, frozen=True):
    """Wait until it answers. Ends in EngineHealthy or StepFailed."""

    pool_id: str
    incarnation: int


class InspectEngine(Struct, frozen=True):
    """Read its properties and prove that it is ours. Ends in EngineInspected or StepFailed."""

    pool_id: str
    incarnation: int


class RunSelfTest(Struct, frozen=True):
    """Run the self-test (ORCH-3049). Ends in StepPassed each, then EngineTested or StepFailed."""

    pool_id: str
    incarnation: int


class ProbeIdleEngine(Struct, frozen=True):
    """Ask an idle engine for a short answer, in this slot where it has one by number. Ends in IdleEngineProbed."""

    pool_id: str
    incarnation: int
    run_id: int
    slot: int | None
    within_ms: int


class RunLiveTest(Struct, frozen=True):
    """Test a worker while it serves, in `slot` where it can be told so. Ends in SelfTestOver."""

    ticket: str
    pool_id: str
    incarnation: int
    run_id: int
    slot: int | None


class StopEngine(Struct, frozen=True):
    """End the process, if there is one, and all that it started. Always ends in EngineStopped."""

    pool_id: str
    incarnation: int


class NoteWorker(Struct, frozen=True):
    """A worker changed its phase: one line of the log, one step of the metrics."""

    pool_id: str
    incarnation: int
    phase: str
    cause: str | None


class NoteBreaker(Struct, frozen=True):
    """A replica was ejected, is on probation, or is trusted again. `cause` is that of the last failure."""

    pool_id: str
    incarnation: int
    trust: str
    cause: str | None
    retry_in_ms: float | None


class NoteEviction(Struct, frozen=True):
    """The KV of a session was given up on this pool: one step of the metrics (ORCH-3022)."""

    pool_id: str


class AnswerRollout(Struct, frozen=True):
    """Tell the caller that it is begun or done. Of a configuration, `pool_id` is "" and `revision` its generation."""

    ticket: str
    pool_id: str
    revision: int


class MeasureParity(Struct, frozen=True):
    """Ask both workers the golden prompts and compare. Ends in ParityMeasured."""

    pool_id: str
    old_key: str
    new_key: str


class NoteRollout(Struct, frozen=True):
    """A revision came further: one line of the log, one step of the metrics. `cause` is one sentence."""

    pool_id: str
    revision: int
    kind: RolloutKind
    outcome: RolloutOutcome
    cause: str | None


class ForgetWorker(Struct, frozen=True):
    """This worker is gone for good: nothing asks for its key any more."""

    key: str


class CompleteQuiesce(Struct, frozen=True):
    """All is at rest, but for `cut` strict tasks that the next daemon runs again: the daemon may replace itself."""

    cut: int


class RefuseQuiesce(Struct, frozen=True):
    """It did not come to rest: `kept` tasks still run that must not be cut; 0: the daemon was told to stop."""

    kept: int


class CompleteHalt(Struct, frozen=True):
    """Nothing runs any more: the daemon may exit."""


Effect = (
    CommitAccept
    | CommitAttempt
    | CommitFinish
    | DropLogs
    | Forget
    | AnswerAccepted
    | AnswerRefused
    | AnswerCancelled
    | CountTokens
    | StartRun
    | AbortRun
    | ConfirmSlotIdle
    | VerifyModel
    | MeasureRoom
    | AdoptEngine
    | EndFoundEngine
    | ProbeEngine
    | NoteFault
    | NoteRecovery
    | CommitIntent
    | CommitNeeds
    | AnswerLease
    | VerifyRelease
    | NoteLease
    | SpawnEngine
    | AwaitHealth
    | InspectEngine
    | RunSelfTest
    | ProbeIdleEngine
    | RunLiveTest
    | StopEngine
    | NoteWorker
    | NoteEviction
    | NoteBreaker
    | AnswerRollout
    | MeasureParity
    | NoteRollout
    | ForgetWorker
    | CompleteQuiesce
    | RefuseQuiesce
    | CompleteHalt
)
