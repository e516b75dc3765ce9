"""The checks of `make gpu-check` about memory: what fits into a real GPU, and whose a real process's memory is.

The daemon's own measuring and judging are asked, with a need, a mask or a model that is pretended.
"""

import asyncio
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from supervisor.core.headroom import find_shortage
from supervisor.core.memory_need import DeviceNeed, PoolNeed, need_fitting
from supervisor.core.plan import HostPlan
from supervisor.core.state import build
from supervisor.runtime.gpus import Device, DeviceSample, GpuSource, Inventory
from supervisor.runtime.residency import Residency, judge, sees_driver_pids
from supervisor.runtime.room import RoomError, measure
from tools.gpu_verdicts import Verdict, failed, passed, skipped
from tools.pretended_plan import pretended_plan

SLACK_MIB = 256
"""So far below and above free memory are the needs: others may take and give some meanwhile."""
HELD_MIB = 256
HOLDER_READY_S_MAX = 60
OTHER_GPU = "GPU-00000000-0000-4000-8000-000000000000"


# Headroom ---------------------------------------------------------------------------------------------------------


async def headroom(device: Device, source: GpuSource) -> list[Verdict]:
    """A need just below free memory is let start; one just above, and one above the whole GPU, are not (ORCH-3003)."""
    name = f"headroom {device.uuid}"
    free_mib = (await source.inventory()).samples[device.uuid].vram_free_mib
    fits, exceeds = need_fitting(free_mib - SLACK_MIB), need_fitting(free_mib + SLACK_MIB)
    if fits <= 0:
        return [skipped(name, f"only {free_mib} MiB are free: stop what runs there")]
    try:
        return [
            await _fits(f"{name} accepted", device, source, fits),
            await _is_refused(f"{name} refused", device, source, exceeds, is_for_good=False),
            await _is_refused(f"{name} never", device, source, device.vram_total_mib, is_for_good=True),
        ]
    except RoomError as error:
        return [failed(name, str(error))]


async def _shortage_of(device: Device, source: GpuSource, need_mib: int) -> tuple[str, bool] | None:
    need = PoolNeed("gpu-check", (DeviceNeed(need_mib, 0, 0, 0),), host_mib=0)
    plan = pretended_plan(device.uuid)
    looker = build((plan,), HostPlan()).replicas[plan.pool_id]
    measured = await measure((plan.pool_id, 1), need, (device.uuid,), source, tuple)
    found = find_shortage(measured, {}, looker, (need_mib,))
    return None if found is None else (found.cause, found.is_for_good)


async def _fits(name: str, device: Device, source: GpuSource, need_mib: int) -> Verdict:
    found = await _shortage_of(device, source, need_mib)
    return passed(name, f"{need_mib} MiB and a reserve fit") if found is None else failed(name, found[0])


async def _is_refused(name: str, device: Device, source: GpuSource, need_mib: int, *, is_for_good: bool) -> Verdict:
    found = await _shortage_of(device, source, need_mib)
    if found is None:
        return failed(name, f"{need_mib} MiB would be let start")
    cause, was_for_good = found
    return passed(name, cause) if was_for_good or not is_for_good else failed(name, f"not for good: {cause}")


# Residency --------------------------------------------------------------------------------------------------------


async def residency(device: Device, source: GpuSource) -> list[Verdict]:
    """A small CUDA process on this GPU, judged on its mask and on a wrong one, and as a model it does not hold."""
    name = f"residency {device.uuid}"
    if device.is_divided:
        return [skipped(name, "it is divided into MIG instances")]
    with _holder(device.uuid) as process:
        said = await asyncio.to_thread(_first_line, process)
        if said != "holding":
            return [skipped(name, f"no CUDA process could be started: {said or 'it ended without a word'}")]
        found = await source.inventory()
        listed = _is_listed(device.uuid, process.pid, found)
        if not sees_driver_pids():
            return [listed, skipped(name, "this program runs in a container and counts pids otherwise than the driver")]
        if listed.outcome != "passed":
            return [listed]
        return [listed, *_judgements(name, device, process.pid, found)]


def _judgements(name: str, device: Device, pid: int, found: Inventory) -> Iterator[Verdict]:
    """What must be proved, and what must not."""
    elsewhere = _with_other_gpu(found)
    model_bytes = HELD_MIB << 20
    yield _expect(f"{name} on its mask", _judge(pid, device.uuid, found, model_bytes), is_passed=True)
    yield _expect(f"{name} off its mask", _judge(pid, OTHER_GPU, elsewhere, model_bytes), is_passed=False)
    yield _expect(f"{name} without memory", _judge(os.getpid(), device.uuid, found, model_bytes), is_passed=False)
    huge = device.vram_total_mib << 22
    yield _expect(f"{name} of half a model", _judge(pid, device.uuid, found, huge), is_passed=False)


def _judge(pid: int, uuid: str, found: Inventory, model_bytes: int) -> Residency:
    return judge({pid}, (uuid,), found, model_bytes, is_simulated=False, can_see=True)


def _expect(name: str, verdict: Residency, *, is_passed: bool) -> Verdict:
    if not verdict.is_proved:
        return failed(name, verdict.detail)
    return passed(name, verdict.detail) if verdict.passed is is_passed else failed(name, f"wrong: {verdict.detail}")


def _with_other_gpu(found: Inventory) -> Inventory:
    """The same host with one more GPU, that nobody uses: a mask of one's own even where there is only one GPU."""
    other = replace(found.devices[0], uuid=OTHER_GPU, index=len(found.devices))
    sample = DeviceSample(0, other.vram_total_mib, 0, processes=())
    return replace(found, devices=(*found.devices, other), samples={**found.samples, OTHER_GPU: sample})


def _is_listed(uuid: str, pid: int, found: Inventory) -> Verdict:
    """Memory by process: the ground on which residency stands."""
    name, processes = f"processes {uuid}", found.samples[uuid].processes
    if processes is None:
        return failed(name, "the driver lists no processes")
    own = [each for each in processes if each.pid == pid]
    if not own and not sees_driver_pids():
        return skipped(name, f"{len(processes)} processes, counted otherwise than here")
    if not own:
        return failed(name, f"pid {pid} holds memory and is not among the {len(processes)} processes")
    used_mib = own[0].used_mib
    if used_mib is None:
        return passed(name, f"pid {pid} is listed; the driver does not say how much it holds")
    said = f"pid {pid} holds {used_mib} MiB, of which {HELD_MIB} were asked for"
    return passed(name, said) if used_mib >= HELD_MIB else failed(name, said)


@contextmanager
def _holder(uuid: str) -> Iterator["subprocess.Popen[str]"]:
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": uuid, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.cuda_holder", str(HELD_MIB)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=env,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _first_line(process: "subprocess.Popen[str]") -> str:
    """What it says first; "" where it says nothing for a minute, for a driver may hang."""
    assert process.stdout is not None
    can_read, _, _ = select.select([process.stdout], [], [], HOLDER_READY_S_MAX)
    return process.stdout.readline().strip() if can_read else ""
