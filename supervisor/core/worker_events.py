"""What happened to GPUs and to the workers on them. See `events`."""

from msgspec import Struct

from supervisor.core.faults import Fault
from supervisor.core.memory_need import DeviceNeed
from supervisor.core.needs import LearnedNeed
from supervisor.core.replicas import FoundEngine


class DeviceSeen(Struct, frozen=True):
    """One GPU of the inventory. `vram_free_mib` is rounded down coarsely: it decides between equals only.

    `recovery` is what the driver asks for (NVML field 230), None where it does not say. `parent` is the GPU that a MIG
    instance is a part of; a GPU that `is_divided` can be used through its instances alone.
    """

    uuid: str
    index: int
    name: str
    vram_total_mib: int
    vram_free_mib: int = 0
    recovery: int | None = None
    parent: str | None = None
    is_divided: bool = False
    compute_capability: tuple[int, int] | None = None


class DevicesSeen(Struct, frozen=True):
    """A complete inventory. `lost` are GPUs that the driver lists and that cannot be used: UUID, and why."""

    devices: tuple[DeviceSeen, ...]
    lost: tuple[tuple[str, str], ...] = ()


class DevicesUnknown(Struct, frozen=True):
    """There is no inventory: no driver, no library, no answer. One sentence. Running workers are left alone."""

    cause: str


class DeviceFaulted(Struct, frozen=True):
    """A GPU reported a fault: an XID or an alarm, out of NVML or the kernel log (`source`).

    `pid` is that of the worker whose process caused it, or of a stranger, None where nobody says; `instance` is the MIG
    instance where it is known. `text` is what was reported.
    """

    uuid: str
    fault: Fault
    source: str
    pid: int | None = None
    instance: str | None = None
    text: str | None = None


class DriverWasReset(Struct, frozen=True):
    """The driver, or one GPU's part of it, began anew: whoever had a context on these GPUs has none any more."""

    uuids: tuple[str, ...]
    cause: str


class EngineProbed(Struct, frozen=True):
    """A worker was asked for a token; `cause` says why none came."""

    pool_id: str
    incarnation: int
    cause: str | None


class ModelVerified(Struct, frozen=True):
    """The model file has the digest that it should have; `beside_digest` is that of the files beside it, if any."""

    pool_id: str
    incarnation: int
    model_digest: str
    beside_digest: str = ""


class Holder(Struct, frozen=True):
    """A process that holds memory of a GPU; one that an engine of ours started counts as that engine."""

    pid: int
    mib: int
    name: str = ""


class DeviceRoom(Struct, frozen=True):
    """One GPU of a worker's mask: what it has, what is free now, and what the worker is estimated to take of it. MiB.

    `parts` is what the need is made of, `holders` are the processes that hold memory there, where the driver says.
    """

    uuid: str
    total_mib: int
    free_mib: int
    need_mib: int
    parts: DeviceNeed | None = None
    holders: tuple[Holder, ...] = ()


class RoomMeasured(Struct, frozen=True):
    """What is free, and what the model, its KV cache and its buffers are estimated to take (ORCH-3003). MiB."""

    pool_id: str
    incarnation: int
    devices: tuple[DeviceRoom, ...]
    host_free_mib: int
    host_need_mib: int
    host_total_mib: int = 0
    recipe: str = ""
    cells_per_slot: int = 0
    slots: int = 1


class MemoryHeld(Struct, frozen=True):
    """What processes hold on each GPU, by UUID; told when it changed by more than a little."""

    devices: tuple[tuple[str, tuple[Holder, ...]], ...]


class HostSeen(Struct, frozen=True):
    """What the host has free for processes, in MiB; told when it changed by more than a little."""

    free_mib: int


class NeedsRestored(Struct, frozen=True):
    """What an earlier daemon learned about needs, oldest first."""

    entries: tuple[LearnedNeed, ...]


class EnginesFound(Struct, frozen=True):
    """Engines that outlived their daemon; before anything else happens to their pools."""

    engines: tuple[FoundEngine, ...]


class EngineSpawned(Struct, frozen=True):
    """The process runs: started, or adopted."""

    pool_id: str
    incarnation: int
    pid: int
    port: int


class EngineHealthy(Struct, frozen=True):
    """It answers that it is up."""

    pool_id: str
    incarnation: int


class EngineInspected(Struct, frozen=True):
    """It said what it is, with our key (ORCH-3032). `ctx_per_slot` is in tokens."""

    pool_id: str
    incarnation: int
    engine_version: str
    slots: int
    ctx_per_slot: int


class StepPassed(Struct, frozen=True):
    """One named step of the self-test passed."""

    pool_id: str
    incarnation: int
    name: str
    took_ms: float
    detail: str | None = None
    is_degraded: bool = False
    """It passed because it could not be carried out here."""


class EngineTested(Struct, frozen=True):
    """All steps of the self-test passed."""

    pool_id: str
    incarnation: int


class StepFailed(Struct, frozen=True):
    """The step under way failed; `cause` is one sentence for the operator."""

    pool_id: str
    incarnation: int
    cause: str


class EngineExited(Struct, frozen=True):
    """The process is gone. `kind` is an exit kind, `cause` one sentence."""

    pool_id: str
    incarnation: int
    kind: str
    cause: str


class EngineStopped(Struct, frozen=True):
    """A stop that was asked for is complete: the process and all that it left behind are gone."""

    pool_id: str
    incarnation: int


class IdleEngineProbed(Struct, frozen=True):
    """The answer to a probe: `cause` is None where the engine generated, else one sentence."""

    pool_id: str
    incarnation: int
    run_id: int
    cause: str | None


class EngineMisplaced(Struct, frozen=True):
    """A serving engine does not hold memory on exactly the GPUs of its mask any more (ORCH-3018)."""

    pool_id: str
    incarnation: int
    cause: str
