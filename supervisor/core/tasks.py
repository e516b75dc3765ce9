"""One accepted task and the phases of its life.

    Accepting -> Waiting -> Running -> Aborting -> Ending -> Ended
                    ^----------'  (a deterministic task whose worker died)

A task is *accepting* until its record is on disk, *ending* from the decision how it ends until that is on disk. The
terminal frame is published when it is `Ended`, exactly once.
"""

from msgspec import Struct

from supervisor.core.refusals import Refused
from supervisor.wire.codes import Determinism, Engine, FinishReason, Priority, Workload


class Outcome(Struct, frozen=True, kw_only=True):
    """How a task ended: `finish_reason` or `error`, never both. `emitted` counts token frames; times are ms."""

    finish_reason: FinishReason | None = None
    error: Refused | None = None
    tokens_in: int | None = None
    tokens_out: int = 0
    emitted: int = 0
    decode_ms: float = 0.0
    is_dropped: bool = False
    """A victim of the full-queue policy."""
    kv_warmth: bool = False
    """Whether the run found the KV of an earlier turn of its session in its slot (ORCH-3009)."""


class Accepting(Struct, gc=False):
    """Admitted; its record is being written. Its room in the queue is reserved."""

    is_cancelled: bool = False


class Waiting(Struct, frozen=True, gc=False):
    """In the waitlist of its set."""


class Running(Struct, frozen=True, gc=False):
    """Dispatched to a slot of one worker. `kv_warmth`: the KV of its session lies in that slot, as far as is known."""

    pool_id: str
    incarnation: int
    run_id: int
    started_ms: float
    kv_warmth: bool = False


class Aborting(Struct, frozen=True):
    """The relay was told to stop; the outcome is completed by its tally, in the same turn of the loop."""

    running: Running
    finish_reason: FinishReason | None
    error: Refused | None


class Ending(Struct, frozen=True):
    """Decided; the record of the end is being written."""

    outcome: Outcome


class Ended(Struct, frozen=True):
    """On disk and published."""

    outcome: Outcome
    at_ms: float


TaskPhase = Accepting | Waiting | Running | Aborting | Ending | Ended

WAITING = Waiting()


class Task(Struct, kw_only=True, gc=False):
    """A task and what decisions about it need. `body` is the accepted request, opaque to the core.

    `size_bytes` counts against the queue's bound in bytes. `admitted_ms` and `deadline_at_ms` are monotonic.
    `prompt_bytes` bounds the number of prompt tokens (at most bytes + 8). `client_id` names the key that submitted it,
    `session` is the caller's session where its KV is to be reused, else None. `memory_bytes` is what the task holds of
    its tenant's quota (KV and scratch). `bucket` says on which side of a split alias its session is; only until the
    task is admitted or restored. `set_kind` names the kind of set that it was admitted to, "" where that is not known.
    `session_life` is the life of its session in which it is counted as a turn, 0 for none.
    """

    job_id: str
    tenant: str
    task_id: str
    engine: Engine
    model_ref: str
    workload: Workload
    sampler_profile_version: str | None
    ctx: int
    priority: Priority
    determinism: Determinism
    max_tokens: int
    expected_tokens: int
    prompt_bytes: int
    size_bytes: int
    body: bytes
    digest: bytes
    admitted_ms: float
    deadline_at_ms: float
    phase: TaskPhase
    set_id: str = ""
    arrival: int = 0
    attempt: int = 0
    attempts_before: int = 0
    """Runs under earlier daemons, whose deaths are not taken for those of workers."""
    daemons_lost: int = 0
    """Daemons that died while the task had a run behind it and no end."""
    emitted: int = 0
    queue_position: int = 0
    predicted_start_ms: int | None = None
    queue_time_ms: float = 0.0
    last_run: Running | None = None
    client_id: str = ""
    session: bytes | None = None
    memory_bytes: int = 0
    bucket: int = 0
    set_kind: str = ""
    session_life: int = 0
    turned_away: int = 0
    """Runs that the engine refused because it was busy, or never heard of: they are no attempts of the task's."""

    @property
    def is_strict(self) -> bool:
        """Whether its token stream must be reproducible (ORCH-3045)."""
        return self.determinism is Determinism.STRICT
