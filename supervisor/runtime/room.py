"""Measures what is free for a worker, and who holds the rest (ORCH-3003). Whether it fits is the core's to say."""

from collections.abc import Callable, Collection

from supervisor.core.events import DeviceRoom, HostSeen, RoomMeasured
from supervisor.core.memory_need import PoolNeed
from supervisor.runtime import host_memory
from supervisor.runtime.gpu_holders import holders_of
from supervisor.runtime.gpus import GpuSource

HOST_STEP_MIB = 256


class RoomError(Exception):
    """What is free or what is needed cannot be seen. One sentence for the operator."""


async def measure(
    key: tuple[str, int],
    need: PoolNeed | None,
    uuids: tuple[str, ...],
    gpus: GpuSource,
    engines: Callable[[], Collection[int]],
) -> RoomMeasured:
    """One look at the devices and the host, for the worker `key` (pool and incarnation).

    `engines` gives the pids of our own engines. Raises RoomError.
    """
    if need is None:
        raise RoomError("the model file does not say what it needs of memory: it is missing or not readable")
    inventory = await gpus.inventory()
    if inventory.cause is not None:
        raise RoomError(inventory.cause)
    totals = {device.uuid: device.vram_total_mib for device in inventory.devices}
    unread = {each.uuid: each.cause for each in inventory.unread}
    ours, rooms = engines(), []
    for uuid, share in zip(uuids, need.devices, strict=True):
        sample = inventory.samples.get(uuid)
        if sample is None:
            raise RoomError(f"GPU {uuid} does not report its memory")
        if uuid in unread:
            raise RoomError(unread[uuid])
        holders = holders_of(sample, ours)
        total = totals[uuid]
        rooms.append(DeviceRoom(uuid, total, sample.vram_free_mib, share.on(total), share, holders))
    memory = host_memory.look()
    return RoomMeasured(
        *key,
        tuple(rooms),
        host_free_mib=memory.free_mib,
        host_need_mib=need.host_mib,
        host_total_mib=memory.total_mib,
        recipe=need.recipe,
        cells_per_slot=need.cells_per_slot,
        slots=need.slots,
    )


class HostWatch:
    """Tells the core what the host has free, when it changed by more than a little."""

    def __init__(self, post: Callable[[HostSeen], None]) -> None:
        self._post = post
        self._told: int | None = None
        host_memory.look()  # opens the file, while there are descriptors

    def look(self) -> None:
        """One look, in whole steps."""
        free_mib = host_memory.look().free_mib // HOST_STEP_MIB * HOST_STEP_MIB
        if free_mib != self._told:
            self._told = free_mib
            self._post(HostSeen(free_mib))
