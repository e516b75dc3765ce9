"""Whether a worker holds GPU memory on exactly the GPUs of its mask (ORCH-3011, ORCH-3018).

Proof is what the driver says of the worker's processes, not what the engine says of itself. Pure but for one file that
says whether this program sees the driver's pids. Replaces nothing: a verdict is a fact.

1. Simulated GPUs hold nothing: the step says so.
2. Where the driver lists no processes, or counts pids otherwise than this program, nothing is proved nor failed.
3. Memory on a GPU outside of the mask: the wrong device.
4. None on a GPU of the mask: a build without CUDA, or a device that the engine does not use.
5. Less in all than `WEIGHTS_SHARE_MIN` of the model: part of it lies with the host.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from supervisor.runtime.gpus import GpuProcess, Inventory

STEP = "residency"
WEIGHTS_SHARE_MIN = 0.5
"""The table of token embeddings stays with the host by design: up to half of a small model, little of a large one."""
INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""Its inode number, fixed in the kernel's ABI; the driver counts pids there."""
_OWN_PIDS = Path("/proc/self/ns/pid")


@dataclass(frozen=True, slots=True)
class Residency:
    """What was seen, in one sentence. `is_proved`: the driver could be asked; only then can it have failed."""

    passed: bool
    is_proved: bool
    detail: str


def sees_driver_pids(namespace: Path = _OWN_PIDS) -> bool:
    """Whether this program counts pids as the driver does: not so in a container of its own."""
    try:
        return namespace.stat().st_ino == INITIAL_PID_NAMESPACE
    except OSError:
        return False


def judge(
    pids: Collection[int], mask: Sequence[str], found: Inventory, model_bytes: int, *, is_simulated: bool, can_see: bool
) -> Residency:
    """The verdict on the worker whose processes are `pids`. `can_see`: see `sees_driver_pids`."""
    if is_simulated:  # 1
        return Residency(passed=True, is_proved=False, detail="simulated")
    why_not = _why_unknown(mask, found, can_see=can_see)
    if why_not is not None:  # 2
        return Residency(passed=True, is_proved=False, detail=f"not proved: {why_not}")
    held = {uuid: _held(pids, sample.processes or ()) for uuid, sample in found.samples.items()}
    strays = sorted(uuid for uuid, own in held.items() if own and uuid not in _allowed(mask, found))
    if strays:  # 3
        return _failed(f"it holds memory on GPU {', '.join(strays)}, which is not in its mask")
    empty = [uuid for uuid in mask if not held.get(uuid)]
    if empty:  # 4
        return _failed(f"it holds no memory on GPU {', '.join(empty)}: its build has no CUDA, or it runs elsewhere")
    known_mib = [each.used_mib for uuid in mask for each in held[uuid]]
    if any(mib is None for mib in known_mib):
        return Residency(
            passed=True, is_proved=True, detail="on every GPU of its mask; the driver does not say how much"
        )
    total_mib, least_mib = sum(mib or 0 for mib in known_mib), int(model_bytes * WEIGHTS_SHARE_MIN) >> 20
    if total_mib < least_mib:  # 5
        whole = model_bytes >> 20
        return _failed(f"it holds {total_mib} MiB on its GPUs of a model of {whole} MiB: part of it lies with the host")
    return Residency(passed=True, is_proved=True, detail=f"{total_mib} MiB on {len(mask)} GPU, none elsewhere")


def _failed(detail: str) -> Residency:
    return Residency(passed=False, is_proved=True, detail=detail)


def _why_unknown(mask: Sequence[str], found: Inventory, *, can_see: bool) -> str | None:
    if found.cause is not None:
        return found.cause
    if not can_see:
        return "the daemon runs in a container and counts processes otherwise than the driver"
    if any(uuid not in found.samples or found.samples[uuid].processes is None for uuid in mask):
        return "the driver does not list the processes on a GPU of its mask"
    return None


def _held(pids: Collection[int], processes: Sequence[GpuProcess]) -> list[GpuProcess]:
    return [each for each in processes if each.pid in pids]


def _allowed(mask: Sequence[str], found: Inventory) -> set[str]:
    """The mask, and the whole GPU of each MIG instance in it, which lists the processes of its parts too."""
    return {*mask, *(each.mig.parent for each in found.devices if each.uuid in mask and each.mig is not None)}
