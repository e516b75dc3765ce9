"""`GET /v1/plan`: what each pool needs of memory, what is free, what fits. Sizes are MiB."""

from msgspec import Struct


class PlanDevice(Struct, kw_only=True):
    """One GPU. `claimed_mib` is promised to workers that are loading and have not taken it yet."""

    uuid: str
    index: int
    name: str
    total_mib: int
    free_mib: int
    claimed_mib: int = 0


class PlanShare(Struct, kw_only=True):
    """What one pool takes of one GPU.

    `source` is estimate or learned, `why` says why that one holds. The four parts are those of the estimate.
    `free_before_mib` is what is left for it in start order; `reserve_mib` must stay free beside the need.
    """

    device: str
    need_mib: int
    reserve_mib: int
    free_before_mib: int
    free_after_mib: int
    source: str
    why: str
    weights_mib: int
    kv_mib: int
    buffers_mib: int
    overhead_mib: int


class PlanPool(Struct, kw_only=True):
    """One pool in start order.

    `verdict`: runs (it has its memory), fits, waits (too little is free), never (it cannot work as configured), unknown
    (its model file says nothing). `load_ms` is how long its last start took, null where it never ran so.
    """

    pool_id: str
    state: str
    verdict: str
    cause: str | None = None
    shares: list[PlanShare] = []
    host_need_mib: int | None = None
    load_ms: float | None = None


class MemoryPlan(Struct, kw_only=True):
    """The whole host. `offline`: made from a config file, without a daemon; then all memory counts as free."""

    offline: bool
    simulated: str | None
    devices: list[PlanDevice]
    pools: list[PlanPool]
    host_free_mib: int | None = None
    gpu_cause: str | None = None
