"""What the core keeps of a pool and of the rollout that it is in. Decides nothing."""

from msgspec import Struct

from supervisor.core.judge import Tally
from supervisor.core.revisions import CanaryPlan, Revision, RevisionNote, RolloutKind, RolloutPhase


class Trial(Struct):
    """What a canary is judged by: runs of both sides, and the share of golden prompts that both answer alike.

    `is_news`: something was counted since the last judgement.
    """

    canary: Tally
    current: Tally
    parity: float | None = None
    is_news: bool = False


class Rollout(Struct, kw_only=True):
    """A revision on its way. `key` is its worker's; `failures` counts its starts that failed, `seen` the last of them.

    `due_ms`: when what still runs on a worker that makes way ends. `cause` says why it is being undone, `is_aborted`
    that an operator wanted it so.
    """

    kind: RolloutKind
    key: str
    phase: RolloutPhase
    since_ms: float
    drain_ms: float
    canary: CanaryPlan | None = None
    failures: int = 0
    seen: int = 0
    due_ms: float | None = None
    cause: str | None = None
    is_aborted: bool = False
    trial: Trial | None = None


class Pool(Struct, kw_only=True):
    """What the configuration names: which worker is its current revision, and what is beside it.

    `current` and `standby` are keys of workers. `previous` is where a rollback goes, None where there is nothing;
    `is_rolled_back`: the last switch was one. `drain_ms` is that of the last rollout, for workers that retire later.
    """

    pool_id: str
    current: str
    next_revision: int
    rollout: Rollout | None = None
    standby: str | None = None
    previous: Revision | None = None
    is_rolled_back: bool = False
    history: tuple[RevisionNote, ...] = ()
    drain_ms: float = 0.0
