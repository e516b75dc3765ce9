"""What operators asked for, and what came of it: drains, rollouts, leases, the end. See `events`."""

from msgspec import Struct

from supervisor.core.intent import Intent, LeaseNote
from supervisor.core.plan import HostPlan, PoolPlan
from supervisor.core.revisions import CanaryPlan, RolloutKind
from supervisor.core.split import Split
from supervisor.wire.codes import Engine


class IntentRestored(Struct, frozen=True):
    """What operators asked of an earlier daemon; `shift_ms` is to be added to its times."""

    intent: Intent
    shift_ms: float


class LeaseRequested(Struct, frozen=True):
    """An operator wants GPUs for a command outside orchctl; what runs on them has `drain_ms` to end."""

    ticket: str
    note: LeaseNote
    drain_ms: float


class LeaseEnded(Struct, frozen=True):
    """A lease was given back, or its holder is gone. `why` is a clause."""

    lease_id: str
    why: str


class ReleaseVerified(Struct, frozen=True):
    """The memory of the workers on a lease's GPUs was seen free; `cause` says why it was not."""

    lease_id: str
    cause: str | None


class SelfTestRequested(Struct, frozen=True):
    """An operator wants a worker tested while it serves."""

    ticket: str
    pool_id: str


class SelfTestOver(Struct, frozen=True):
    """Such a test is done, however it went, and nothing of it is left in the engine."""

    pool_id: str
    incarnation: int
    run_id: int


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


class RolloutRequested(Struct, frozen=True, kw_only=True):
    """A new revision is to take over from the current one, or to take a share beside it (ORCH-3031, ORCH-3033).

    `plan.pool_id` is the key of the new worker, `<pool>+<next revision>`. `drain_ms`: what runs on a worker that has to
    go has so long to end. `canary` is given for the kind that takes a share.
    """

    ticket: str
    pool_id: str
    plan: PoolPlan
    kind: RolloutKind
    drain_ms: float
    canary: CanaryPlan | None = None


class RolloutPromoted(Struct, frozen=True):
    """The canary is to take over."""

    ticket: str
    pool_id: str


class RolloutAborted(Struct, frozen=True):
    """What was begun is to be undone: the current revision stays, or comes back. `cause` is one sentence."""

    ticket: str
    pool_id: str
    cause: str


class RollbackRequested(Struct, frozen=True):
    """The revision before the current one is to serve again; it is still loaded, or the answer is a refusal."""

    ticket: str
    pool_id: str


class CanaryShared(Struct, frozen=True):
    """The canary is to take another share of the alias, in buckets of 10,000."""

    ticket: str
    pool_id: str
    share_buckets: int


class ParityMeasured(Struct, frozen=True):
    """How many of the golden prompts the canary answered as the current revision does. `total` 0: nobody knows."""

    pool_id: str
    revision: int
    matched: int
    total: int
    detail: str | None = None


class PoolsChanged(Struct, frozen=True, kw_only=True):
    """A new configuration (ORCH-3031): pools that came, that go (public ids), and whose bounds changed in place.

    `tuned` plans have the key of the worker that they are for. What runs on a pool that goes has `drain_ms` to end.
    """

    ticket: str
    generation: int
    added: tuple[PoolPlan, ...] = ()
    removed: tuple[str, ...] = ()
    tuned: tuple[PoolPlan, ...] = ()
    host: HostPlan | None = None
    drain_ms: float = 0.0


class HaltRequested(Struct, frozen=True):
    """The daemon is to stop within `deadline_ms`. A second one with 0 stops at once."""

    deadline_ms: float


class QuiesceRequested(Struct, frozen=True):
    """The daemon is about to replace itself: come to rest within `deadline_ms`."""

    deadline_ms: float


class QuiesceEnded(Struct, frozen=True):
    """It stays after all: everything goes on."""
