"""Brings the faults of GPUs to the core, out of NVML's events and the kernel log, in one form.

Who a GPU is, is its UUID; whose a process is, is its process group, for an engine may have children. What a fault
means and whether it is news is the core's to say.
"""

import logging
import os
from collections.abc import Callable

from supervisor.core.events import DeviceFaulted, Event
from supervisor.runtime.gpu_events import GpuEvent
from supervisor.runtime.gpus import Device, Inventory
from supervisor.runtime.kernel_log import KernelLine, find_fault

log = logging.getLogger(__name__)


class FaultDesk:
    """`look_soon` is called after every fault: memory and the recovery action may be others now."""

    def __init__(self, post: Callable[[Event], None], look_soon: Callable[[], None]) -> None:
        self._post = post
        self._look_soon = look_soon
        self._devices: tuple[Device, ...] = ()

    def know(self, inventory: Inventory) -> None:
        """Remember who is where. A GPU that is lost keeps its place, for its last words may come late."""
        present = {device.uuid for device in inventory.devices}
        places = {device.place.bus_id for device in inventory.devices}
        gone = (each for each in self._devices if each.uuid not in present and each.place.bus_id not in places)
        self._devices = (*inventory.devices, *gone)

    def note_line(self, line: KernelLine) -> None:
        """A line of the kernel."""
        event = find_fault(line)
        if event is not None:
            self.note(event)

    def note(self, event: GpuEvent) -> None:
        """A fault that NVML or the kernel told of."""
        uuid = event.uuid or self._uuid_at(event.bus_id)
        if event.fault is not None and uuid is not None:
            self._post(
                DeviceFaulted(
                    uuid, event.fault, event.source, _group_of(event.pid), self._instance(uuid, event), event.text
                )
            )
        elif event.fault is not None:
            log.warning("a fault of a GPU that is not known", extra={"bus_id": event.bus_id, "text": event.text})
        self._look_soon()

    def _uuid_at(self, bus_id: str | None) -> str | None:
        """Whole GPUs come before their instances."""
        wanted = _short(bus_id)
        found = (each.uuid for each in self._devices if each.mig is None and _short(each.place.bus_id) == wanted)
        return None if wanted is None else next(found, None)

    def _instance(self, uuid: str, event: GpuEvent) -> str | None:
        for each in self._devices:
            mig = each.mig
            if mig and mig.parent == uuid and (mig.gpu_instance, mig.compute_instance) == event.instance:
                return each.uuid
        return None


def _short(bus_id: str | None) -> str | None:
    """The driver writes `00000000:3B:00.0`, the kernel `0000:3b:00`."""
    return None if bus_id is None else bus_id.lower().partition(".")[0][-10:]


def _group_of(pid: int | None) -> int | None:
    """The process group of an engine has the number of its first process, which is what the core knows."""
    if pid is None:
        return None
    try:
        return os.getpgid(pid)
    except (OSError, OverflowError):
        return pid
