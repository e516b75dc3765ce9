"""Replies of the control plane: pools, devices, replica sets and the daemon itself (spec §6.1)."""

from typing import Annotated

from msgspec import Meta, Struct

from supervisor.wire.codes import Engine
from supervisor.wire.devices import DeviceHealth, DevicePlace
from supervisor.wire.rollouts import RolloutView
from supervisor.wire.store import StoreView

DRAIN_DEADLINE_MS_MAX = 86_400_000


class DrainRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/pools/:id/drain`: what is in flight after `deadline_ms` milliseconds ends as WORKER_RESET."""

    deadline_ms: Annotated[int, Meta(ge=0, le=DRAIN_DEADLINE_MS_MAX)]


class PoolChange(Struct, kw_only=True):
    """202 of drain and resume: the state that the pool is now heading for."""

    pool_id: str
    draining: bool


class StepStatus(Struct, kw_only=True):
    """One step on the way to Ready (ORCH-3049). `state` is passed, running or failed; `took_ms` once over."""

    name: str
    state: str
    took_ms: int | None = None
    detail: str | None = None


class PoolMetrics(Struct, kw_only=True):
    """The figures of one pool at this moment. Latencies are milliseconds, recent, null without samples."""

    slots_total: int
    slots_busy: int
    waiting: int
    tokens_per_s: float
    tokens_out_total: int
    restarts_total: int
    first_token_p50_ms: float | None = None
    first_token_p95_ms: float | None = None
    first_token_p99_ms: float | None = None
    queue_time_p50_ms: float | None = None
    queue_time_p95_ms: float | None = None
    queue_time_p99_ms: float | None = None
    predicted_start_error_p50_ms: float | None = None
    predicted_start_error_p90_ms: float | None = None
    predicted_start_error_p50_percent: float | None = None
    predicted_start_error_p90_percent: float | None = None


class BreakerView(Struct, kw_only=True):
    """How far a Ready replica is trusted. `state`: closed, open (ejected), half-open (one probe next), probing.

    `retry_in_ms` counts down to the next probe of an open one, `cause` is its last failure.
    """

    state: str
    retry_in_ms: int | None = None
    cause: str | None = None


class PoolHealth(Struct, kw_only=True):
    """`GET /v1/pools/:id/health`. `state` is the lifecycle phase, `cause` one line that says why it is not Ready.

    `retry_in_ms` counts down to the next attempt; `steps` shows the current or the last attempt, in order.
    """

    pool_id: str
    live: bool
    ready: bool
    draining: bool
    state: str
    engine: Engine
    model_ref: str
    ctx: int
    devices: list[str]
    metrics: PoolMetrics
    steps: list[StepStatus]
    breaker: BreakerView | None = None
    cause: str | None = None
    retry_in_ms: int | None = None
    since_ms: int = 0
    replica_id: str | None = None
    engine_version: str | None = None
    model_digest: str | None = None
    ctx_per_slot: int | None = None
    pid: int | None = None
    revision: int = 1
    role: str = "current"
    """What the worker is to its pool: current, candidate, canary, standby or retiring."""
    rollout: RolloutView | None = None
    """What is under way; `orchctl rollout status` shows it."""


class ReplicaView(Struct, kw_only=True):
    """One member of a replica set and its load."""

    pool_id: str
    ready: bool
    slots_total: int
    slots_busy: int
    role: str = "current"
    revision: int = 1


class ReplicaSetView(Struct, kw_only=True):
    """Replicas that may serve the same task: equal in everything that decides its bytes (ORCH-3007)."""

    set_id: str
    engine: Engine
    model_digest: str | None
    quant: str | None
    ctx: int
    engine_version: str | None
    sampler_profile_version: str
    replicas: list[ReplicaView]
    waiting: dict[str, int]
    waiting_bytes: int


class ReplicaSetPage(Struct, kw_only=True):
    """`GET /v1/replicasets`."""

    replicasets: list[ReplicaSetView]


class DeviceView(Struct, kw_only=True):
    """One GPU or MIG instance. Sizes are MiB, utilisation is percent; null where NVML could not say.

    `stale`: NVML does not answer, the figures are those of the last look. `withheld` says why no worker may use it,
    `flags` what to know of one that goes on serving. A GPU that `is_divided` is used through its MIG instances.
    """

    uuid: str
    index: int
    name: str
    vram_total_mib: int
    vram_used_mib: int | None
    vram_free_mib: int | None
    utilization_percent: int | None
    pools: list[str]
    compute_capability: str | None = None
    mig_parent: str | None = None
    is_divided: bool = False
    stale: bool = False
    withheld: str | None = None
    flags: list[str] = []
    place: DevicePlace | None = None
    health: DeviceHealth | None = None


class PolicyStatus(Struct, kw_only=True):
    """The policy plugin (ORCH-3048). `state` is active, set_aside or refused; `cause` is its last failure."""

    state: str
    digest: str | None
    cause: str | None
    calls: dict[str, int]


class TenantView(Struct, kw_only=True):
    """What one tenant holds and may hold at once (ORCH-3036); null where nothing bounds it. Memory is in bytes."""

    tenant: str
    weight: int
    jobs: int
    jobs_max: int | None
    waiting: int
    waiting_max: int | None
    memory_bytes: int
    memory_bytes_max: int | None


class HostStatus(Struct, kw_only=True):
    """`GET /v1/status` (control plane): everything `orchctl status` shows.

    `simulated` is the text of `--simulate-gpus` where it is in force; `gpu_cause` says why no GPU is usable. `causes`:
    files that changed and could not be taken up; `keys_file` is where this daemon reads its API keys.
    """

    version: str
    pid: int
    uptime_ms: int
    state: str
    simulated: str | None
    gpu_cause: str | None
    journal_writable: bool
    devices: list[DeviceView]
    pools: list[PoolHealth]
    replicasets: list[ReplicaSetView]
    policy: PolicyStatus | None = None
    tenants: list[TenantView] = []
    keys_file: str | None = None
    store: StoreView | None = None
    worker_groups: str | None = None
    """In which control groups workers run, or why in none."""
    causes: list[str] = []
    config_generation: int = 1
    journal_cause: str | None = None
    """What the disk did, while the journal cannot be written."""
    gpu_trouble: str | None = None
    """What is wrong with the GPUs or their driver now, also where others of them can be used."""
