"""Looks at the GPUs every few seconds and tells the core when what is there has changed.

A look that failed says nothing about the GPUs: one lost answer never stops a healthy worker. Before the first good look
it is all there is to say, and the core is told why nothing can be placed (ORCH-1101).
"""

import asyncio
import logging
from collections.abc import Callable

from supervisor.core.events import DeviceSeen, DevicesSeen, DevicesUnknown, Event
from supervisor.runtime.gauges import Gauges
from supervisor.runtime.gpus import Device, DeviceSample, GpuSource, Inventory
from supervisor.wire.pools import DeviceView

LOOK_EVERY_S = 2.0
VRAM_STEP_MIB = 256
"""Less is noise: the core compares free memory only to choose between equally loaded workers."""

log = logging.getLogger(__name__)


class DeviceWatch:
    """Owns the GPU source."""

    def __init__(self, source: GpuSource, post: Callable[[Event], None], gauges: Gauges) -> None:
        self._source = source
        self._post = post
        self._gauges = gauges
        self._seen: tuple[DeviceSeen, ...] | None = None
        self._cause: str | None = None

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.note(await self._source.inventory())
            await asyncio.sleep(LOOK_EVERY_S)

    def note(self, inventory: Inventory) -> None:
        """Take over one look; the core hears of changes only."""
        self._note_trouble(inventory)
        if inventory.cause is not None:
            return
        self._sample(inventory)
        seen = tuple(_seen(each, inventory.samples.get(each.uuid)) for each in inventory.devices)
        if seen != self._seen:
            self._seen = seen
            self._post(DevicesSeen(seen))

    def _note_trouble(self, inventory: Inventory) -> None:
        if inventory.trouble == self._cause:
            return
        self._cause = inventory.trouble
        if self._cause:
            log.warning("GPU trouble", extra={"cause": self._cause, "kind": str(inventory.kind or "")})
        if inventory.cause is not None and self._seen is None:
            self._post(DevicesUnknown(inventory.cause))

    def _sample(self, inventory: Inventory) -> None:
        views = {}
        for device in inventory.devices:
            sample = inventory.samples.get(device.uuid)
            views[device.uuid] = DeviceView(
                uuid=device.uuid,
                index=device.index,
                name=device.name,
                vram_total_mib=device.vram_total_mib,
                vram_used_mib=sample.vram_used_mib if sample else None,
                vram_free_mib=sample.vram_free_mib if sample else None,
                utilization_percent=sample.utilization_percent if sample else None,
                pools=[],
            )
            if sample:
                self._gauges.metrics.note_device(
                    device.uuid, sample.vram_used_mib, sample.vram_free_mib, sample.utilization_percent
                )
        self._gauges.devices = views

    async def close(self) -> None:
        """Let go of the driver."""
        await self._source.close()


def _seen(device: Device, sample: DeviceSample | None) -> DeviceSeen:
    """What the core is to know of a device; its free memory in whole steps, so that it hears of real changes only."""
    free_mib = sample.vram_free_mib // VRAM_STEP_MIB * VRAM_STEP_MIB if sample else 0
    return DeviceSeen(device.uuid, device.index, device.name, device.vram_total_mib, free_mib)
