"""Pretended GPUs for trying the program on a machine without one, and the rule that keeps them off every other.

There is no other switch that lets an engine start without an NVIDIA GPU. The figures are what was asked for on the
command line, less what our own workers pretend to hold: nothing is measured.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from supervisor.runtime.gpu_events import GpuEvent
from supervisor.runtime.gpus import Device, DeviceSample, GpuProcess, GpuTrouble, Inventory

DEVICES_MAX = 16
VRAM_GIB_MAX = 1024
_GROUP = re.compile(r"(?P<count>[1-9][0-9]{0,3})x(?P<gib>[1-9][0-9]{0,3})GiB")
_COMPUTE_CAPABILITY = (8, 0)
_PROVES_NO_GPU = frozenset({GpuTrouble.LIBRARY_MISSING, GpuTrouble.DRIVER_NOT_LOADED})


class SimulationTextError(ValueError):
    """`--simulate-gpus` was given something that is not its grammar. One sentence."""


class SimulationRefusedError(Exception):
    """GPUs may not be simulated here, because a real one is present or cannot be ruled out. One sentence."""


def parse_simulated(text: str) -> tuple[Device, ...]:
    """Devices for `COUNTxSIZEGiB[,COUNTxSIZEGiB…]`, as in `1x8GiB,1x24GiB`: 1 to 16 GPUs of 1 to 1024 GiB each.

    The n-th simulated GPU has the same uuid in every run and on every machine.

    Raises:
        SimulationTextError: another grammar, or out of bounds.
    """
    sizes: list[int] = []
    for group in text.split(","):
        match = _GROUP.fullmatch(group)
        if match is None:
            raise SimulationTextError(f"simulated GPUs are written like 2x24GiB or 1x8GiB,1x24GiB, not {text[:80]!r}")
        if int(match["gib"]) > VRAM_GIB_MAX:
            raise SimulationTextError(f"a simulated GPU has at most {VRAM_GIB_MAX} GiB, not {match['gib']}")
        if len(sizes) + int(match["count"]) > DEVICES_MAX:
            raise SimulationTextError(f"at most {DEVICES_MAX} GPUs can be simulated")
        sizes += [int(match["gib"])] * int(match["count"])
    return tuple(_device(index, gib) for index, gib in enumerate(sizes))


def _device(index: int, gib: int) -> Device:
    return Device(
        uuid=f"GPU-5111a7ed-0000-4000-8000-{index:012x}",
        index=index,
        name=f"simulated GPU {gib} GiB",
        vram_total_mib=gib * 1024,
        compute_capability=_COMPUTE_CAPABILITY,
        is_simulated=True,
    )


class SimulatedGpus:
    """A `GpuSource` that always finds the devices it was made with."""

    def __init__(self, devices: tuple[Device, ...]) -> None:
        self._devices = devices
        self._occupants: Callable[[], Mapping[str, tuple[GpuProcess, ...]]] = dict

    def occupy(self, occupants: Callable[[], Mapping[str, tuple[GpuProcess, ...]]]) -> None:
        """Who pretends to hold memory of them, by UUID; asked at every look."""
        self._occupants = occupants

    async def inventory(self) -> Inventory:
        """The devices, as much of their memory free as nobody pretends to hold."""
        held = self._occupants()
        samples = {device.uuid: _sample(device, held.get(device.uuid, ())) for device in self._devices}
        return Inventory(devices=self._devices, samples=samples)

    def listen(self, tell: Callable[[GpuEvent], None]) -> None:
        """Nothing happens to them."""

    def renew(self) -> None:
        """There is no driver."""

    async def close(self) -> None:
        """Nothing is held."""


def _sample(device: Device, processes: tuple[GpuProcess, ...]) -> DeviceSample:
    used = min(sum(each.used_mib or 0 for each in processes), device.vram_total_mib)
    return DeviceSample(used, device.vram_total_mib - used, None, processes=processes)


def require_no_real_gpu(found: Inventory, *, root: Path = Path("/")) -> None:
    """Allow simulation only where it is proved that there is no NVIDIA GPU (ORCH-1101).

    1. NVML lists a GPU, usable or not: refused.
    2. The kernel driver shows one below `root` (`/proc/driver/nvidia/gpus`, `/dev/nvidia0` …): refused.
    3. NVML is there but fails otherwise than by having no library or no driver: a GPU may be behind it; refused.

    Raises:
        SimulationRefusedError: one of the above.
    """
    listed = len(found.devices) + len(found.unusable)
    if listed:  # 1
        raise SimulationRefusedError(f"GPUs cannot be simulated here: this machine has {listed} NVIDIA GPU(s)")
    for path in _driver_traces(root):  # 2
        raise SimulationRefusedError(f"GPUs cannot be simulated here: {path} says that an NVIDIA GPU is present")
    if found.kind is not None and found.kind not in _PROVES_NO_GPU:  # 3
        raise SimulationRefusedError(f"GPUs cannot be simulated here: an NVIDIA driver is present ({found.cause})")


def _driver_traces(root: Path) -> list[Path]:
    proc = root / "proc/driver/nvidia/gpus"
    return [path for path in (proc, *sorted((root / "dev").glob("nvidia[0-9]*"))) if path.exists()]
