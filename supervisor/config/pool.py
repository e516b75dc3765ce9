"""One pool of the config (spec section 8): its keys, their bounds and the rules between them; no rule between pools."""

from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from supervisor.config.fields import (
    Count,
    Ctx,
    Device,
    DurationMs,
    Finding,
    Flag,
    GraceMs,
    PoolId,
    PoolModelRef,
    ProfileVersion,
    Quant,
    Ratio,
    Section,
    refuse,
    wrong,
)
from supervisor.config.launch import LaunchConfig
from supervisor.config.probe import ProbeConfig
from supervisor.wire.codes import Determinism, Engine, FullPolicy, Priority, QueueOrder, Workload

DEVICES_MAX = 64
SLOTS_MAX = 256
CAPACITY_MAX = 1_000_000
RATE_RPS_MIN = 0.001
RATE_RPS_MAX = 1_000_000
SPLIT_SUM_TOLERANCE = 0.01
WALL_MS_DEFAULT = 600_000
IDLE_MS_DEFAULT = 30_000

Capacity = Annotated[Count, Field(ge=1, le=CAPACITY_MAX)]


@dataclass(frozen=True, slots=True)
class ClassLimits:
    """What holds for one priority class of a pool: waiting tasks, tasks per second and key, and the bucket's size."""

    queue_capacity: int
    rate_limit_rps: float | None
    burst: float | None


class QueueConfig(Section):
    """The bounded queue of a pool (ORCH-3004, ORCH-3005): waiting tasks and their bytes; who goes first in a class."""

    capacity: Capacity = 256
    full_policy: FullPolicy = FullPolicy.REJECT
    order: QueueOrder = QueueOrder.FIFO
    bytes_max: Annotated[Count, Field(ge=1024, le=2**40)] = 268_435_456


class ClassConfig(Section):
    """Limits of one priority class. Tasks per second count per client key (ORCH-3006)."""

    name: Priority
    queue_capacity: Capacity | None = None
    rate_limit_rps: Annotated[Ratio, Field(ge=RATE_RPS_MIN, le=RATE_RPS_MAX)] | None = None
    burst: Annotated[Ratio, Field(ge=1, le=RATE_RPS_MAX)] | None = None

    @model_validator(mode="after")
    def _burst_needs_a_rate(self) -> Self:
        if self.burst is not None and self.rate_limit_rps is None:
            refuse("class", [Finding(("burst",), "a burst without a rate_limit_rps limits nothing")])
        return self


class AdmissionConfig(Section):
    """The priority classes that have limits of their own; a class left out may use the whole pool's queue."""

    priorities: Annotated[tuple[ClassConfig, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _name_each_class_once(self) -> Self:
        names = [entry.name for entry in self.priorities or ()]
        refuse(
            "admission",
            [
                Finding(("priorities", index, "name"), f"the class {name} is already listed above")
                for index, name in enumerate(names)
                if name in names[:index]
            ],
        )
        return self


class TimeoutsConfig(Section):
    """The watchdog (ORCH-3016): wall from dispatch, idle between two tokens, all in milliseconds."""

    wall_ms: DurationMs = WALL_MS_DEFAULT
    idle_ms: DurationMs = Field(default_factory=lambda given: min(IDLE_MS_DEFAULT, given["wall_ms"]))
    first_token_ms: DurationMs | None = None

    @model_validator(mode="after")
    def _wall_is_the_longest(self) -> Self:
        limits = {"idle_ms": self.idle_ms, "first_token_ms": self.first_token_ms}
        refuse(
            "timeouts",
            [
                Finding((name,), f"{limit} is above wall_ms ({self.wall_ms}), so it could never fire")
                for name, limit in limits.items()
                if limit is not None and limit > self.wall_ms
            ],
        )
        return self


def _preload_always(value: object) -> object:
    if not value:
        raise wrong("a pool always loads its model before it is Ready (ORCH-3002); remove this key")
    return value


def _same_version_always(value: object) -> object:
    if not value:
        raise wrong("replicas of another engine version never mix (ORCH-3046); remove this key")
    return value


class PoolConfig(Section):
    """One pool: one model on one device mask, served by one engine process (ORCH-3001).

    `ctx` is tokens per slot, `devices` the mask in order, `tensor_split` the share of each device.
    """

    id: PoolId
    engine: Engine
    model: PoolModelRef
    quant: Quant | None = None
    ctx: Ctx | None = None
    devices: Annotated[tuple[Device, ...], Field(min_length=1, max_length=DEVICES_MAX)]
    tensor_split: tuple[Ratio, ...] | None = None
    preload: Annotated[Flag, AfterValidator(_preload_always)] = True
    require_same_engine_version: Annotated[Flag, AfterValidator(_same_version_always)] = True
    sampler_profile_version: ProfileVersion = "v1"
    queue: QueueConfig = QueueConfig()
    admission: AdmissionConfig = AdmissionConfig()
    timeouts: TimeoutsConfig = TimeoutsConfig()
    slots: Annotated[Count, Field(ge=1, le=SLOTS_MAX)] = 1
    workloads: Annotated[tuple[Workload, ...], Field(min_length=1)] = (Workload.COMPLETION,)
    determinism: Determinism = Determinism.STRICT
    disconnect_grace_ms: GraceMs | None = None
    launch: LaunchConfig = LaunchConfig()
    probe: ProbeConfig = ProbeConfig()

    def limits_of(self, priority: Priority) -> ClassLimits:
        """The limits of one class with every default filled in."""
        entry = next((one for one in self.admission.priorities or () if one.name == priority), None)
        if entry is None:
            return ClassLimits(self.queue.capacity, None, None)
        rate = entry.rate_limit_rps
        burst = entry.burst if entry.burst is not None or rate is None else max(1.0, rate)
        return ClassLimits(entry.queue_capacity or self.queue.capacity, rate, burst)

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        findings = [*_device_findings(self), *_split_findings(self), *_class_findings(self), *_slot_findings(self)]
        refuse("pool", findings + _workload_findings(self))
        return self


def _device_findings(pool: PoolConfig) -> list[Finding]:
    names = [str(device).lower() for device in pool.devices]
    return [
        Finding(("devices", index), f"{pool.devices[index]} is already in this device mask")
        for index, name in enumerate(names)
        if name in names[:index]
    ]


def _split_findings(pool: PoolConfig) -> list[Finding]:
    """Ratios are one for each device and sum to 1 (ORCH-3012)."""
    split = pool.tensor_split
    if split is None:
        return []
    if len(split) != len(pool.devices):
        return [Finding(("tensor_split",), f"{len(split)} ratios for {len(pool.devices)} devices")]
    if abs(sum(split) - 1) > SPLIT_SUM_TOLERANCE + 1e-9:
        return [Finding(("tensor_split",), f"the ratios sum to {sum(split):.4g} instead of 1")]
    return []


def _class_findings(pool: PoolConfig) -> list[Finding]:
    return [
        Finding(
            ("admission", "priorities", index, "queue_capacity"),
            f"{entry.queue_capacity} is above the pool's own queue.capacity ({pool.queue.capacity})",
        )
        for index, entry in enumerate(pool.admission.priorities or ())
        if entry.queue_capacity is not None and entry.queue_capacity > pool.queue.capacity
    ]


def _workload_findings(pool: PoolConfig) -> list[Finding]:
    """llama.cpp pools for the whole process, and spreads the inputs of one task over all its slots."""
    words = pool.workloads
    findings = [
        Finding(("workloads", index), f"{word} is already listed")
        for index, word in enumerate(words)
        if word in words[:index]
    ]
    if findings or pool.engine != Engine.LLAMACPP:
        return findings
    if len(words) > 1:
        return [Finding(("workloads",), "llama.cpp does one workload per process: give each its own pool")]
    if pool.slots > 1 and words[0] != Workload.COMPLETION:
        return [Finding(("slots",), f"a pool of llama.cpp that does {words[0]} takes one slot")]
    if words[0] != Workload.COMPLETION and pool.ctx is None:
        message = f"needs `ctx` beside it: an input of {words[0]} goes through whole, so it is also the size of a batch"
        return [Finding(("workloads",), message)]
    return []


def _slot_findings(pool: PoolConfig) -> list[Finding]:
    """llama.cpp's numbers depend on what else is in the batch, so strict tasks need the worker for themselves."""
    is_strict = pool.determinism == Determinism.STRICT
    if pool.slots > 1 and is_strict and pool.engine == Engine.LLAMACPP:
        message = f"{pool.slots} slots of llama.cpp cannot be strict: say `determinism: best_effort`, or take one slot"
        return [Finding(("slots",), message)]
    return []
