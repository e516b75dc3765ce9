"""Whether a leased GPU is free of us: by what the driver lists, and by the mark that every process of an engine has."""

import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from supervisor.runtime.gpus import Device, DeviceSample, GpuProcess, Inventory
from supervisor.runtime.lease_holders import LeaseHolders
from supervisor.runtime.processes_env import MARK_NAME

GPU = Device("GPU-0", 0, "H100", 80_000, (9, 0))


def one_gpu(*pids: int, lists: bool = True) -> Callable[[], Awaitable[Inventory]]:
    """A look that finds one GPU with these processes on it, or cannot list them."""
    rows = tuple(GpuProcess(pid, 900) for pid in pids) if lists else None
    found = Inventory((GPU,), (), {"GPU-0": DeviceSample(0, 80_000, 0, processes=rows)})

    async def look() -> Inventory:
        return found

    return look


@contextmanager
def a_process(mark: str) -> Iterator[int]:
    process = subprocess.Popen(["sleep", "600"], env={**os.environ, MARK_NAME: mark})
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


async def test_a_process_with_our_mark_holds_the_gpu_and_a_stranger_does_not() -> None:
    with a_process("ours.1234") as own, a_process("theirs.1234") as other:
        held = await LeaseHolders(one_gpu(own, other), "ours", can_see=True).held("GPU-0")

    assert held == {own: 900}


async def test_where_the_driver_lists_nothing_nobody_can_say() -> None:
    assert await LeaseHolders(one_gpu(lists=False), "ours", can_see=True).held("GPU-0") is None


async def test_a_program_that_counts_pids_otherwise_cannot_say() -> None:
    assert await LeaseHolders(one_gpu(1), "ours", can_see=False).held("GPU-0") is None
