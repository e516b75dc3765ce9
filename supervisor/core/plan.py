"""What the configuration says of a pool, in the core's words: frozen values, resolved once by the runtime."""

from msgspec import Struct

from supervisor.core.memory_need import PoolNeed
from supervisor.wire.codes import Determinism, Engine, FullPolicy, Priority, QueueOrder, Workload

REVISION_MARK = "+"


def public_id_of(key: str) -> str:
    """The pool that a worker's key belongs to, as clients and operators know it."""
    return key.partition(REVISION_MARK)[0]


class ClassBounds(Struct, frozen=True):
    """Bounds of one priority class in one pool: waiting tasks, and submits of one key (per second, and at once)."""

    capacity: int
    rate_limit_rps: float | None = None
    burst: float = 1.0


class PoolPlan(Struct, frozen=True, kw_only=True):
    """One pool: one model, one device mask, one engine process (ORCH-3001).

    `model_refs` are all the names under which a task may ask for the model; `model_digest` is `sha256:<hex>` or None
    where the configuration does not say. `ctx` is tokens per slot, None until the engine reports it. `devices` are
    indices or UUIDs, in mask order. Times are milliseconds, sizes bytes.
    """

    pool_id: str
    engine: Engine
    model_ref: str
    model_refs: frozenset[str]
    model_digest: str | None
    quant: str | None
    ctx: int | None
    slots: int
    tensor_split: tuple[float, ...] | None
    sampler_profile_version: str
    determinism: Determinism
    is_batch_invariant: bool
    workloads: frozenset[Workload]
    devices: tuple[int | str, ...]
    queue_capacity: int
    queue_bytes_max: int
    full_policy: FullPolicy
    classes: dict[Priority, ClassBounds]
    wall_ms: int
    idle_ms: int
    first_token_ms: int | None
    disconnect_grace_ms: int
    load_timeout_ms: int
    kv_bytes_per_token: int = 0
    """Bytes of KV cache that one token of context takes, over all devices; 0 where nobody knows."""
    can_pin_slots: bool = False
    """Whether a request can name the engine's slot that it must run in."""
    queue_order: QueueOrder = QueueOrder.FIFO
    probe_every_ms: int | None = None
    """How long a worker may be idle before it must show that it generates; None: it is never asked."""
    probe_within_ms: int = 15_000
    config_digest: str = ""
    """Of the configuration that it was made from; the runtime's, opaque here."""
    need: PoolNeed | None = None
    """What a worker is estimated to need; None where the model file does not say."""
    unplannable: str | None = None
    """One sentence where the pool can never start as configured: no adapter, no model file, a refused flag."""

    @property
    def public_id(self) -> str:
        """The pool as clients and operators know it.

        `pool_id` names the worker: the pool itself, or `<pool>+<revision>` for what a rollout put beside or in place of
        its first one. No id of the configuration holds a plus.
        """
        return public_id_of(self.pool_id)


class TenantPlan(Struct, frozen=True, kw_only=True):
    """What one tenant may hold at once (None for any number), and its share of a queue in fair order."""

    concurrent_jobs: int | None = None
    waiting_tasks: int | None = None
    memory_bytes: int | None = None
    weight: int = 1


NO_QUOTA = TenantPlan()


class HostPlan(Struct, frozen=True, kw_only=True):
    """Bounds of the whole daemon. Times are milliseconds, sizes bytes. A tenant that is not listed has no quota."""

    finished_retention_ms: int = 600_000
    finished_bytes_max: int = 268_435_456
    finished_ids_min: int = 10_000
    tenants: dict[str, TenantPlan] = {}
    attempts_max: int = 2
    """Workers that one task may lose under one daemon."""
    daemons_lost_max: int = 5
    """Daemons that one task may lose: it may be what ends them."""
    session_ttl_ms: int = 600_000
    session_turns_max: int = 8
    sessions_max: int = 10_000
    lease_devices_max: int | None = None
    """GPUs that one owner may lease at once."""
    keep_previous_ms: int = 600_000
    """How long the revision before the current one stays loaded for a rollback."""
