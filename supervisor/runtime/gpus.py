"""What the daemon knows of the host's GPUs: frozen records, and the protocol of whoever reads them.

Facts only. Nothing here decides what a missing GPU means for a pool (the core does), and nothing calls a driver
(`gpus_nvml` does). Sizes are MiB, rounded down; utilisation is percent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


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
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU that can be used. `index` is its place in PCI order and may change; `uuid` is who it is."""

    uuid: str
    index: int
    name: str
    vram_total_mib: int
    compute_capability: tuple[int, int] | None
    is_simulated: bool = False


@dataclass(frozen=True, slots=True)
class DeviceSample:
    """One GPU at one moment. Utilisation is None where the GPU does not report it."""

    vram_used_mib: int
    vram_free_mib: int
    utilization_percent: int | None


@dataclass(frozen=True, slots=True)
class UnusableDevice:
    """A GPU that the driver lists and that cannot be used: fallen off the bus, needs a reset, reports no memory."""

    index: int
    kind: GpuTrouble
    cause: str


@dataclass(frozen=True, slots=True)
class Inventory:
    """One look at all GPUs.

    Either the look succeeded (`kind` and `cause` are None): `devices` and `unusable` together are every GPU of the
    host, `samples` holds each device's figures by uuid, and a GPU that is in neither is gone. Or it failed: the three
    are empty, which says nothing about the GPUs, and `cause` is one sentence.
    """

    devices: tuple[Device, ...] = ()
    unusable: tuple[UnusableDevice, ...] = ()
    samples: Mapping[str, DeviceSample] = field(default_factory=dict)
    kind: GpuTrouble | None = None
    cause: str | None = None

    @property
    def trouble(self) -> str | None:
        """One sentence for the operator where anything is not as it should be, else None (ORCH-1101)."""
        if self.cause is not None:
            return self.cause
        if self.unusable:
            return "; ".join(device.cause for device in self.unusable)
        return None if self.devices else "no NVIDIA GPU was found"


class GpuSource(Protocol):
    """Reads the GPUs, real or simulated."""

    async def inventory(self) -> Inventory:
        """Look once; bounded in time, never raises, never blocks the event loop."""

    async def close(self) -> None:
        """Let go of the driver; bounded in time."""
