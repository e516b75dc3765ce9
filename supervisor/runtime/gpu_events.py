"""What a GPU tells unasked, out of NVML's events or the kernel log: frozen records. Facts only."""

from dataclasses import dataclass
from enum import StrEnum

from supervisor.core.faults import Fault


class EventSource(StrEnum):
    """Where it was heard."""

    NVML = "nvml"
    KERNEL_LOG = "kernel_log"


@dataclass(frozen=True, slots=True)
class GpuEvent:
    """One fault; `fault` is None where NVML says only that some GPU is lost.

    NVML names the GPU by `uuid`, the kernel log by `bus_id` (`0000:9b:00`); `instance` are the numbers of a MIG
    instance.
    """

    source: EventSource
    fault: Fault | None
    uuid: str | None = None
    bus_id: str | None = None
    pid: int | None = None
    instance: tuple[int, int] | None = None
    text: str | None = None
