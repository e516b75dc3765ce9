"""Looks at the GPUs every few seconds, and at once after a fault; tells the core when what is there has changed.

A look that failed says nothing about the GPUs: one lost answer never stops a healthy worker, its figures are stale and
say so. Before the first good look it is all there is to say, and the core is told why nothing can be placed
(ORCH-1101). While a GPU is withheld every good look is told: it is given back by facts that are newer than its fault.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import msgspec

from supervisor.core.events import DeviceSeen, DevicesSeen, DevicesUnknown, DriverWasReset, Event
from supervisor.core.faults import recovery_of
from supervisor.runtime.driver_resets import DriverResets
from supervisor.runtime.fault_desk import FaultDesk
from supervisor.runtime.fault_notes import FaultNotes
from supervisor.runtime.gauges import Gauges
from supervisor.runtime.gpus import Device, DeviceSample, GpuSource, Inventory
from supervisor.runtime.kernel_log import KernelLog
from supervisor.wire.devices import DeviceHealth, DevicePlace
from supervisor.wire.pools import DeviceView

LOOK_EVERY_S = 2.0
LOOK_AGAIN_S = 0.2
"""The least time between two looks, however many faults come."""
VRAM_STEP_MIB = 256
"""Less is noise: the core compares free memory only to choose between equally loaded workers."""


class DeviceWatch:
    """Owns the GPU source and the kernel log. `has_holds` says whether the core withholds a GPU.

    `on_look` is told every good look.
    """

    def __init__(
        self,
        source: GpuSource,
        post: Callable[[Event], None],
        gauges: Gauges,
        notes: FaultNotes,
        *,
        has_holds: Callable[[], bool] = lambda: False,
        on_look: Callable[[Inventory], None] = lambda _: None,
        kernel_log: KernelLog | None = None,
    ) -> None:
        self._source = source
        self._post = post
        self._gauges = gauges
        self._notes = notes
        self._has_holds = has_holds
        self._on_look = on_look
        self._kernel_log = kernel_log
        self._soon = asyncio.Event()
        self._desk = FaultDesk(post, self.look_soon)
        self._resets = DriverResets()
        self._seen: DevicesSeen | None = None
        self._troubles: dict[str, str] = {}

    def look_soon(self) -> None:
        """Something happened that a look may explain: take one, `LOOK_AGAIN_S` after the last at the earliest."""
        self._soon.set()

    async def run(self, every_s: float = LOOK_EVERY_S) -> None:
        """Look until cancelled."""
        self._source.listen(self._desk.note)
        if self._kernel_log is not None:
            self._kernel_log.subscribe(self._desk.note_line)
            self._kernel_log.start()
        while True:
            self._soon.clear()
            self.note(await self._source.inventory())
            await asyncio.sleep(LOOK_AGAIN_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._soon.wait(), every_s - LOOK_AGAIN_S)

    def note(self, inventory: Inventory) -> None:
        """Take over one look; the core hears of changes only."""
        self._note_trouble(inventory)
        self._note_reset(inventory)
        if inventory.cause is not None:
            self._gauges.devices = {
                uuid: msgspec.structs.replace(view, stale=True) for uuid, view in self._gauges.devices.items()
            }
            self._gauges.metrics.note_devices(self._gauges.devices.values())
            return
        self._desk.know(inventory)
        self._sample(inventory)
        self._on_look(inventory)
        lost = tuple((each.uuid, each.cause) for each in inventory.unusable if each.uuid is not None)
        seen = DevicesSeen(tuple(_seen(each, inventory.samples.get(each.uuid)) for each in inventory.devices), lost)
        if seen != self._seen or self._has_holds():
            self._seen = seen
            self._post(seen)

    def _note_trouble(self, inventory: Inventory) -> None:
        """One line and one count for each trouble that begins, one line where all are over."""
        troubles = {each.cause: str(each.kind) for each in inventory.troubled}
        if inventory.cause is not None:
            troubles = {inventory.cause: str(inventory.kind or "")}
        elif not inventory.devices and not troubles:
            troubles = {str(inventory.trouble): "no_gpu"}
        for cause, kind in troubles.items():
            if cause not in self._troubles:
                self._notes.note_trouble(kind, cause)
        if self._troubles and not troubles:
            self._notes.note_mended(", ".join(sorted(set(self._troubles.values()))))
        self._troubles = troubles
        self._gauges.gpu_trouble = "; ".join(troubles) or None
        if inventory.cause is not None and self._seen is None:
            self._post(DevicesUnknown(inventory.cause))

    def _note_reset(self, inventory: Inventory) -> None:
        found = self._resets.find(inventory)
        if found is not None:
            uuids, cause = found
            self._notes.note_driver_reset(cause)
            self._source.renew()
            self._post(DriverWasReset(uuids, cause))

    def _sample(self, inventory: Inventory) -> None:
        unread = {each.uuid for each in inventory.unread}
        self._gauges.devices = {
            device.uuid: _view(device, inventory.samples.get(device.uuid), stale=_whole(device) in unread)
            for device in inventory.devices
        }
        self._gauges.metrics.note_devices(self._gauges.devices.values())

    async def close(self) -> None:
        """Let go of the log and of the driver."""
        if self._kernel_log is not None:
            self._kernel_log.close()
        await self._source.close()


def _whole(device: Device) -> str:
    """The GPU that it is, or is a part of."""
    return device.uuid if device.mig is None else device.mig.parent


def _view(device: Device, sample: DeviceSample | None, *, stale: bool) -> DeviceView:
    return DeviceView(
        uuid=device.uuid,
        index=device.index,
        name=device.name,
        vram_total_mib=device.vram_total_mib,
        vram_used_mib=sample.vram_used_mib if sample else None,
        vram_free_mib=sample.vram_free_mib if sample else None,
        utilization_percent=sample.utilization_percent if sample else None,
        pools=[],
        stale=stale,
        compute_capability=".".join(map(str, device.compute_capability)) if device.compute_capability else None,
        mig_parent=device.mig.parent if device.mig else None,
        is_divided=device.is_divided,
        place=msgspec.convert(asdict(device.place), DevicePlace),
        health=_view_health(sample) if sample else None,
    )


def _view_health(sample: DeviceSample) -> DeviceHealth:
    figures: dict[str, Any] = asdict(sample.health)
    action = figures.pop("recovery_action")
    return DeviceHealth(**figures, recovery_action=None if action is None else recovery_of(action))


def _seen(device: Device, sample: DeviceSample | None) -> DeviceSeen:
    """What the core is to know of a device; its free memory in whole steps, so that it hears of real changes only."""
    free_mib = sample.vram_free_mib // VRAM_STEP_MIB * VRAM_STEP_MIB if sample else 0
    return DeviceSeen(
        device.uuid,
        device.index,
        device.name,
        device.vram_total_mib,
        free_mib,
        recovery=sample.health.recovery_action if sample else None,
        parent=device.mig.parent if device.mig else None,
        is_divided=device.is_divided,
        compute_capability=device.compute_capability,
    )
