"""Measures what a worker would need and what is free (ORCH-3003). Whether it fits is the core's to say.

The need of a model file is its size and its KV cache, each GPU taking its share of both.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from supervisor.core.events import DeviceRoom, RoomMeasured
from supervisor.core.plan import PoolPlan
from supervisor.runtime.gpus import GpuSource

MIB = 1 << 20
_MEMINFO = Path("/proc/meminfo")


class RoomError(Exception):
    """What is free cannot be seen. One sentence for the operator."""


async def measure(
    plan: PoolPlan, incarnation: int, model: Path, uuids: tuple[str, ...], gpus: GpuSource
) -> RoomMeasured:
    """One look at the devices and the host. Raises RoomError."""
    inventory = await gpus.inventory()
    if inventory.cause is not None:
        raise RoomError(inventory.cause)
    totals = {device.uuid: device.vram_total_mib for device in inventory.devices}
    size = (await asyncio.to_thread(model.stat)).st_size
    need_mib = (size + plan.kv_bytes_per_token * (plan.ctx or 0) * plan.slots) // MIB + 1
    rooms = []
    for uuid, share in zip(uuids, plan.tensor_split or (1 / len(uuids),) * len(uuids), strict=True):
        sample = inventory.samples.get(uuid)
        if sample is None:
            raise RoomError(f"GPU {uuid} does not report its memory")
        rooms.append(DeviceRoom(uuid, totals[uuid], sample.vram_free_mib, round(need_mib * share)))
    host = _meminfo()
    return RoomMeasured(plan.pool_id, incarnation, tuple(rooms), host["MemAvailable"] // 1024, 0)


def _meminfo() -> Mapping[str, int]:
    """Figures of `/proc/meminfo` in KiB."""
    rows = (line.split() for line in _MEMINFO.read_text(encoding="ascii").splitlines())
    return {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) > 1}
