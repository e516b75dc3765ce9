"""Words of the control plane about changes: reload, canary, rollback, history, configuration (spec §6.1, §3.11)."""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from supervisor.wire.tasks import MODEL_REF_PATTERN

DRAIN_MS_MAX = 86_400_000
BUCKETS_PER_PERCENT = 100
TASKS_MAX = 1_000_000
WINDOW_MS_MAX = 86_400_000
FIRST_TOKEN_MS_MAX = 86_400_000
CAUSE_MAX = 256

NewModel = Annotated[str, Meta(pattern=MODEL_REF_PATTERN)]
DrainMs = Annotated[int, Meta(ge=0, le=DRAIN_MS_MAX)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Share = Annotated[float, Meta(ge=0, le=1)]


class ReloadRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/pools/:id/reload`: another model for a pool. `drain_ms` holds where the old worker must go first."""

    new_model_ref: NewModel
    drain_ms: DrainMs | UnsetType = UNSET
    dry_run: bool | UnsetType = UNSET


class JudgeTerms(Struct, kw_only=True, forbid_unknown_fields=True):
    """By what a canary is judged; what is left out is as the configuration's `rollout.judge` says."""

    min_tasks: Annotated[int, Meta(ge=1, le=TASKS_MAX)] | UnsetType = UNSET
    window_ms: Annotated[int, Meta(ge=1_000, le=WINDOW_MS_MAX)] | UnsetType = UNSET
    error_gap_max: Share | UnsetType = UNSET
    first_token_ms_max: Annotated[int, Meta(ge=1, le=FIRST_TOKEN_MS_MAX)] | UnsetType = UNSET
    late_gap_max: Share | UnsetType = UNSET
    parity_min: Share | UnsetType = UNSET
    promote_after_tasks: Annotated[int, Meta(ge=1, le=TASKS_MAX)] | UnsetType = UNSET


class CanaryRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/pools/:id/canary`: a share of a pool's sessions for another model (ORCH-3033).

    With `auto` it is promoted or taken back by its figures; without it nothing is decided, only shown.
    """

    new_model_ref: NewModel
    percent: Percent
    auto: bool | UnsetType = UNSET
    judge: JudgeTerms | UnsetType = UNSET
    drain_ms: DrainMs | UnsetType = UNSET
    dry_run: bool | UnsetType = UNSET


class ShareRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/pools/:id/rollout/share`: another share for the canary that runs."""

    percent: Percent


class RolloutStarted(Struct, kw_only=True):
    """202 of reload, canary and rollback, and the answer to promote and abort. `dry_run`: nothing was changed."""

    pool_id: str
    revision: int
    dry_run: bool = False


class JudgementView(Struct, kw_only=True):
    """What is known of a side of a canary in the window: tasks, failed ones, late ones."""

    tasks: int
    errors: int
    late: int


class ParityView(Struct, kw_only=True):
    """The share of golden prompts that both revisions answered alike, 0 to 1."""

    share: float


class RevisionStep(Struct, kw_only=True):
    """One step of the new worker on its way to Ready."""

    name: str
    state: str
    took_ms: int | None = None
    detail: str | None = None


class RolloutView(Struct, kw_only=True):
    """A rollout under way: from which revision to which, and how far it came.

    `kind`: reload, config, canary or rollback. `state` is its phase, `worker_state` that of the new worker, `steps` its
    way to Ready, `cause` what went wrong last. `percent` is the canary's share of sessions.
    """

    kind: str
    state: str
    from_revision: int
    to_revision: int
    from_model: str
    to_model: str
    since_ms: int
    percent: float | None = None
    judged: bool = False
    worker_state: str | None = None
    steps: list[RevisionStep] = []
    canary: JudgementView | None = None
    current: JudgementView | None = None
    parity: ParityView | None = None
    cause: str | None = None


class RevisionView(Struct, kw_only=True):
    """One line of a pool's history. `outcome`: started, shared, switched, failed, aborted, rolled-back."""

    revision: int
    model_ref: str
    kind: str
    outcome: str
    age_ms: int
    cause: str | None = None


class RolloutPage(Struct, kw_only=True):
    """`GET /v1/pools/:id/rollout`: the revision that serves, what is under way, and the history, newest first.

    `standby` is the revision that a rollback goes to at once, null where it would be loaded anew.
    """

    pool_id: str
    revision: int
    model_ref: str
    standby: int | None
    rollout: RolloutView | None
    history: list[RevisionView]


class ConfigReloadRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/config/reload`. `dry_run`: say what would change; `revert`: the configuration before this one."""

    dry_run: bool | UnsetType = UNSET
    revert: bool | UnsetType = UNSET


class ConfigChange(Struct, kw_only=True):
    """One key that differs, and what its change costs: hot, replace, new_pool, removed_pool or restart.

    `pool_id` is null for a key of the daemon, `key` for a pool as a whole.
    """

    pool_id: str | None
    key: str | None
    effect: str


class ConfigReloaded(Struct, kw_only=True):
    """The configuration that is in force now, or would be after a dry run. No changes: it was in force already."""

    generation: int
    dry_run: bool
    changes: list[ConfigChange]
    warnings: list[str] = []
