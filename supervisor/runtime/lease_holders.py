"""Which processes of ours hold memory on a GPU, also those whose engine was given up: who has its mark is ours.

What the driver lists decides. Where it lists nothing, or counts pids otherwise than this program, nobody can say.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from supervisor.runtime.gpus import Inventory
from supervisor.runtime.processes_sweep import of_instance
from supervisor.runtime.residency import sees_driver_pids


class LeaseHolders:
    """`held(uuid)` gives pid -> MiB; None where nobody can say."""

    def __init__(self, look: Callable[[], Awaitable[Inventory]], instance: str, *, can_see: bool | None = None) -> None:
        self._look = look
        self._is_ours = of_instance(instance)
        self._can_see = sees_driver_pids() if can_see is None else can_see

    async def held(self, uuid: str) -> Mapping[int, int] | None:
        """One look."""
        inventory = await self._look()
        sample = inventory.samples.get(uuid)
        if inventory.cause is not None or sample is None or sample.processes is None or not self._can_see:
            return None
        found = {process.pid: process.used_mib or 0 for process in sample.processes}
        return await asyncio.to_thread(lambda: {pid: mib for pid, mib in found.items() if self._is_ours(pid)})
