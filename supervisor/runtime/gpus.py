"""What the daemon knows of the host's GPUs: frozen records, and the protocol of whoever reads them.

Facts only. Nothing here decides what a missing GPU means for a pool (the core does), and nothing calls a driver
(`gpus_nvml` does). Sizes are MiB, rounded down; utilisation is percent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from supervisor.runtime.gpu_events import GpuEvent


class GpuTrouble(StrEnum):
    """Why a GPU, or all of them, cannot be read. One word for logs and metrics; the sentence stands beside it."""

    LIBRARY_MISSING = "library_missing"
    DRIVER_NOT_LOADED = "driver_not_loaded"
    VERSION_MISMATCH = "version_mismatch"
    GPU_LOST = "gpu_lost"
    RESET_REQUIRED = "reset_required"
    NOT_FOUND = "not_found"
    FUNCTION_MISSING = "function_missing"
    NOT_SUPPORTED = "not_supported"
    NO_PERMISSION = "no_permission"
    TIMEOUT = "timeout"
    UNINITIALIZED = "uninitialized"
    ACCESS_LOST = "access_lost"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a GPU sits; None where the GPU, its driver or the host does not say.

    `bus_id` is as the driver writes it (`00000000:3B:00.0`), `cpus` are those next to it, `nvlinks` the bus ids at the
    other ends of its active links (a switch or another GPU).
    """

    bus_id: str | None = None
    pcie_gen_max: int | None = None
    pcie_width_max: int | None = None
    numa_node: int | None = None
    cpus: tuple[int, ...] | None = None
    nvlinks: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class MigPart:
    """What a MIG instance is a part of: the UUID of its GPU, and its numbers there."""

    parent: str
    gpu_instance: int | None
    compute_instance: int | None


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU or MIG instance that can be used.

    `index` is its place in PCI order and may change, a MIG instance has that of its GPU; `uuid` is who it is
    (`GPU-...`, `MIG-...`). A GPU that `is_divided` into MIG instances can be used through those alone.
    """

    uuid: str
    index: int
    name: str
    vram_total_mib: int
    compute_capability: tuple[int, int] | None
    is_simulated: bool = False
    place: Place = Place()
    mig: MigPart | None = None
    is_divided: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """What a GPU says of its own state; None where it does not say.

    Counts of ECC errors are since the driver was loaded (`volatile`) and of the GPU's whole life (`aggregate`). Rows
    are remapped from Ampere on, pages were retired before. `recovery_action` is NVML field 230, 0 for none.
    """

    temperature_c: int | None = None
    power_w: float | None = None
    is_persistent: bool | None = None
    pcie_gen: int | None = None
    pcie_width: int | None = None
    has_ecc: bool | None = None
    ecc_single_volatile: int | None = None
    ecc_double_volatile: int | None = None
    ecc_single_aggregate: int | None = None
    ecc_double_aggregate: int | None = None
    pages_retired_single: int | None = None
    pages_retired_double: int | None = None
    pages_pending: bool | None = None
    rows_remapped_correctable: int | None = None
    rows_remapped_uncorrectable: int | None = None
    rows_pending: bool | None = None
    rows_failed: bool | None = None
    recovery_action: int | None = None


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process with a compute context on a GPU. MiB, None where the driver does not say."""

    pid: int
    used_mib: int | None


@dataclass(frozen=True, slots=True)
class DeviceSample:
    """One GPU at one moment. What it does not report is None; `processes` is None where they cannot be listed."""

    vram_used_mib: int
    vram_free_mib: int
    utilization_percent: int | None
    health: Health = Health()
    processes: tuple[GpuProcess, ...] | None = None


@dataclass(frozen=True, slots=True)
class UnusableDevice:
    """A GPU that the driver lists and that cannot be used, or not be read: fallen off the bus, access denied.

    `uuid` is None where it was never known.
    """

    index: int
    kind: GpuTrouble
    cause: str
    uuid: str | None = None


@dataclass(frozen=True, slots=True)
class Inventory:
    """One look at all GPUs.

    Either the look succeeded (`kind` and `cause` are None): `devices` and `unusable` together are every GPU of the
    host, `samples` holds each device's figures by uuid, and a GPU that is in neither is gone. `unread` are those of the
    devices that gave no answer this time: their figures are the last ones, without processes. Or it failed: all are
    empty, which says nothing about the GPUs, and `cause` is one sentence.
    """

    devices: tuple[Device, ...] = ()
    unusable: tuple[UnusableDevice, ...] = ()
    samples: Mapping[str, DeviceSample] = field(default_factory=dict)
    driver_version: str | None = None
    kind: GpuTrouble | None = None
    cause: str | None = None
    unread: tuple[UnusableDevice, ...] = ()

    @property
    def troubled(self) -> tuple[UnusableDevice, ...]:
        """Each GPU that is not as it should be, though others can be read."""
        return (*self.unusable, *self.unread)

    @property
    def trouble(self) -> str | None:
        """One sentence for the operator where anything is not as it should be, else None (ORCH-1101)."""
        if self.cause is not None:
            return self.cause
        if self.troubled:
            return "; ".join(device.cause for device in self.troubled)
        return None if self.devices else "no NVIDIA GPU was found"


class GpuSource(Protocol):
    """Reads the GPUs, real or simulated."""

    async def inventory(self) -> Inventory:
        """Look once; bounded in time, never raises, never blocks the event loop."""

    def listen(self, tell: Callable[[GpuEvent], None]) -> None:
        """Tell of every event of a GPU from now on, on the event loop."""

    def renew(self) -> None:
        """Start the driver's library anew before the next look."""

    async def close(self) -> None:
        """Let go of the driver; bounded in time."""
