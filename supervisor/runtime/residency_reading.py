"""Asks where a worker holds its memory: its processes, the driver, once its log. The verdict is `residency`'s.

An engine may write down what it is given, so its words are proof only before its first task: they are read once, then.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path

from supervisor.runtime import engine_logs
from supervisor.runtime.gpus import Inventory
from supervisor.runtime.residency import Residency, judge, sees_driver_pids

LOG_BYTES_MAX = 1 << 20


async def read_residency(
    find_pids: Callable[[], Collection[int]],
    mask: Sequence[str],
    look: Callable[[], Awaitable[Inventory]],
    model_bytes: int,
    *,
    spill: str | None,
    is_simulated: bool,
) -> Residency:
    """One look at a worker; `spill` is what its log said at first. Bounded in time, as the look at the GPUs is."""
    inventory = await look()
    try:
        pids = await asyncio.to_thread(find_pids)
    except OSError as error:
        return Residency(passed=True, is_proved=False, detail=f"not proved: its processes: {error.strerror}")
    found = judge(pids, mask, inventory, model_bytes, is_simulated=is_simulated, can_see=sees_driver_pids())
    if is_simulated or not found.passed or spill is None:
        return found
    return Residency(passed=False, is_proved=True, detail=spill)


async def read_spill(log_path: Path, run: str, find_spill: Callable[[str], str | None]) -> str | None:
    """What an engine said of memory elsewhere; `run` names it in its log. To be asked before it is given anything.

    Raises:
        OSError: the log cannot be read.
    """
    return find_spill(await asyncio.to_thread(engine_logs.tail, log_path, bytes_max=LOG_BYTES_MAX, run=run))
