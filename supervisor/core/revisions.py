"""The words of rollouts: what a pool, a revision, a canary and the terms of its judgement are. Plain values.

A *pool* is what the configuration names. It has *revisions*, numbered from 1; each is one plan with one worker, whose
key is the pool's id for revision 1 and `<pool>+<revision>` for later ones. Decides nothing.
"""

from enum import StrEnum

from msgspec import Struct

from supervisor.core.plan import REVISION_MARK

HISTORY_MAX = 20
"""Notes that a pool keeps of its revisions, the newest ones."""


class Role(StrEnum):
    """What a worker is to its pool. Only the current one and a canary take traffic."""

    CURRENT = "current"
    CANDIDATE = "candidate"
    CANARY = "canary"
    STANDBY = "standby"
    RETIRING = "retiring"


TRAFFIC = (Role.CURRENT, Role.CANARY)


class RolloutKind(StrEnum):
    """Why a revision is put in place of another, or beside it."""

    RELOAD = "reload"
    CONFIG = "config"
    CANARY = "canary"
    ROLLBACK = "rollback"


class RolloutPhase(StrEnum):
    """How far a rollout has come. These words are shown to operators."""

    STARTING = "starting"
    DRAINING = "draining"
    STOPPING = "stopping"
    SWAPPING = "swapping"
    SHARING = "sharing"
    RETURNING = "returning"
    WAKING = "waking"


class RolloutOutcome(StrEnum):
    """What became of a revision. The last three say that it does not serve."""

    STARTED = "started"
    SHARED = "shared"
    SWITCHED = "switched"
    FAILED = "failed"
    ABORTED = "aborted"
    ROLLED_BACK = "rolled-back"


class JudgePlan(Struct, frozen=True, kw_only=True):
    """By what a canary is judged, over the last `window_ms`; nothing is said of fewer than `min_tasks` of its tasks.

    `error_gap_max`: by how much its share of failed runs may exceed that of the current revision, 0..1.
    `first_token_ms_max`: the objective (dispatch to first token), None for none; `late_gap_max`: by how much its share
    of runs past that may exceed the current one's. `parity_min`: share of golden prompts that both must answer alike,
    None where they need not. `promote_after_tasks`: it takes over after so many of its tasks in the window with nothing
    against it, None for never by itself.
    """

    min_tasks: int = 20
    window_ms: int = 300_000
    error_gap_max: float = 0.02
    first_token_ms_max: int | None = None
    late_gap_max: float = 0.05
    parity_min: float | None = None
    promote_after_tasks: int | None = None


class CanaryPlan(Struct, frozen=True, kw_only=True):
    """Which share of the alias a canary takes, in buckets of 10,000, and who judges it; None: an operator alone."""

    share_buckets: int
    judge: JudgePlan | None = None


class Revision(Struct, frozen=True, kw_only=True):
    """One revision, as far as it is needed to build its plan again. `config_digest` is the runtime's, opaque here."""

    number: int
    model_ref: str
    config_digest: str = ""


class RevisionNote(Struct, frozen=True, kw_only=True):
    """One line of a pool's history. `at_ms` is monotonic; `cause` is one sentence, None where all went as asked."""

    revision: int
    model_ref: str
    kind: RolloutKind
    outcome: RolloutOutcome
    at_ms: float
    cause: str | None = None


def parse_key(key: str) -> tuple[str, int]:
    """The pool and the revision that a worker's key names."""
    pool_id, _, number = key.partition(REVISION_MARK)
    return pool_id, int(number) if number else 1


def name_key(pool_id: str, revision: int) -> str:
    """The worker's key of a revision."""
    return pool_id if revision == 1 else f"{pool_id}{REVISION_MARK}{revision}"
