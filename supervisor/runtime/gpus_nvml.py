"""NVML with a deadline: the only place that calls the NVIDIA driver.

NVML can block for many seconds when a GPU is in trouble, and no call of it can be interrupted. So each look runs in a
side thread (one at a time) and is given up after `deadline_s`; the thread is left behind and, while `stuck_max` of
them are, NVML is not asked again at all. After any failure NVML is shut down and initialised anew by the next look, so
that a reloaded driver or a re-enumerated GPU needs no restart of the daemon; the caller's interval is the backoff.
It never resets a GPU and never changes one of its settings.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pynvml

from supervisor.runtime.gpus import Device, DeviceSample, GpuTrouble, Inventory, UnusableDevice
from supervisor.runtime.side_thread import call_aside

DEADLINE_S = 2.0
STUCK_MAX = 3
MIB = 1 << 20
_SHUTDOWNS_MAX = 16

_KINDS = {
    pynvml.NVML_ERROR_NOT_SUPPORTED: GpuTrouble.NOT_SUPPORTED,
    pynvml.NVML_ERROR_NO_PERMISSION: GpuTrouble.NO_PERMISSION,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: GpuTrouble.DRIVER_NOT_LOADED,
    pynvml.NVML_ERROR_TIMEOUT: GpuTrouble.TIMEOUT,
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: GpuTrouble.LIBRARY_MISSING,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: GpuTrouble.FUNCTION_MISSING,
    pynvml.NVML_ERROR_GPU_IS_LOST: GpuTrouble.GPU_LOST,
    pynvml.NVML_ERROR_RESET_REQUIRED: GpuTrouble.RESET_REQUIRED,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: GpuTrouble.VERSION_MISMATCH,
    pynvml.NVML_ERROR_GPU_NOT_FOUND: GpuTrouble.NOT_FOUND,
}

_CAUSES = {
    GpuTrouble.LIBRARY_MISSING: "the NVIDIA driver is not installed (libnvidia-ml.so.1 was not found)",
    GpuTrouble.DRIVER_NOT_LOADED: "the NVIDIA kernel driver is not loaded",
    GpuTrouble.VERSION_MISMATCH: "the NVIDIA driver was upgraded and its kernel module is still the old one; reboot",
    GpuTrouble.GPU_LOST: "fell off the bus",
    GpuTrouble.RESET_REQUIRED: "needs a reset",
    GpuTrouble.NOT_FOUND: "is not there any more",
    GpuTrouble.FUNCTION_MISSING: "the installed NVIDIA driver is too old: it lacks a function of NVML that is needed",
    GpuTrouble.NOT_SUPPORTED: "does not report its memory",
    GpuTrouble.NO_PERMISSION: "the daemon's user may not talk to the NVIDIA driver",
    GpuTrouble.TIMEOUT: "the NVIDIA driver timed out",
    GpuTrouble.UNKNOWN: "NVML failed for an unknown reason, as it does when access to the GPU devices is taken away",
}

_OF_ONE_DEVICE = frozenset(
    {GpuTrouble.GPU_LOST, GpuTrouble.RESET_REQUIRED, GpuTrouble.NOT_FOUND, GpuTrouble.NOT_SUPPORTED}
)
"""What is about the GPU that was asked and leaves the others usable; anything else spoils the whole look."""

_ABSENT_FIGURE = (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)


class NvmlReader:
    """A `GpuSource` over the real NVML. One per process (NVML's state is the process's), used from one event loop."""

    def __init__(self, *, deadline_s: float = DEADLINE_S, stuck_max: int = STUCK_MAX) -> None:
        self._deadline_s = deadline_s
        self._stuck_max = stuck_max
        self._stuck = 0
        self._turn = asyncio.Lock()
        self._session = _Session()

    async def inventory(self) -> Inventory:
        """Look at all GPUs; within `deadline_s` of its turn there is an answer, if only that there is none."""
        async with self._turn:
            if self._stuck >= self._stuck_max:
                return _silent(f"NVML is left alone until one of {self._stuck} calls that hang in it comes back")
            is_late = threading.Event()
            try:
                look = call_aside(lambda: self._session.look(is_late), name="nvml")
            except RuntimeError as error:
                return Inventory(kind=GpuTrouble.UNKNOWN, cause=f"NVML could not be asked: {error}")
            await asyncio.wait({look}, timeout=self._deadline_s)
            if look.done():
                return look.result()
            is_late.set()
            self._leave_behind(look)
            return _silent(f"NVML did not answer within {self._deadline_s:g} s")

    async def close(self) -> None:
        """Shut NVML down, unless a call hangs in it; waits `deadline_s` at most."""
        async with self._turn:
            if not self._stuck:
                await asyncio.wait({call_aside(self._session.shut_down, name="nvml")}, timeout=self._deadline_s)

    def _leave_behind(self, look: asyncio.Future[Inventory]) -> None:
        self._stuck += 1

        def came_back(late: asyncio.Future[Inventory]) -> None:
            self._stuck -= 1
            if not late.cancelled():
                late.exception()  # seen, so that asyncio does not complain; the result is too old to be of use

        look.add_done_callback(came_back)


def _silent(cause: str) -> Inventory:
    return Inventory(kind=GpuTrouble.TIMEOUT, cause=cause)


class _Session:
    """NVML, initialised when needed and kept so while all is well; every method blocks."""

    def __init__(self) -> None:
        self._is_up = False

    def look(self, is_late: threading.Event) -> Inventory:
        """Read everything. A look that was given up in the meantime leaves NVML to the one that came after it."""
        try:
            if not self._is_up:
                pynvml.nvmlInit()
                self._is_up = True
            found = _enumerate()
        except pynvml.NVMLError as error:
            found = _failed(error)
        except UnicodeDecodeError:
            found = Inventory(kind=GpuTrouble.UNKNOWN, cause="NVML gave a GPU a name or uuid that is not text")
        if found.trouble and not is_late.is_set():
            self.shut_down()  # only a fresh start enumerates the GPUs again
        return found

    def shut_down(self) -> None:
        """End NVML for certain: a late look may have counted one more reference on it."""
        self._is_up = False
        with contextlib.suppress(pynvml.NVMLError):
            for _ in range(_SHUTDOWNS_MAX):
                pynvml.nvmlShutdown()


def _enumerate() -> Inventory:
    devices: list[Device] = []
    unusable: list[UnusableDevice] = []
    samples: dict[str, DeviceSample] = {}
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            device, sample = _read_device(index)
        except pynvml.NVMLError as error:
            kind = _kind(error)
            if kind not in _OF_ONE_DEVICE:
                raise
            unusable.append(UnusableDevice(index, kind, f"GPU {index} {_CAUSES[kind]}"))
        else:
            devices.append(device)
            samples[device.uuid] = sample
    return Inventory(tuple(devices), tuple(unusable), samples)


def _read_device(index: int) -> tuple[Device, DeviceSample]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    capability = _optional(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    utilization = _optional(pynvml.nvmlDeviceGetUtilizationRates, handle)
    device = Device(
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        index=index,
        name=pynvml.nvmlDeviceGetName(handle),
        vram_total_mib=memory.total // MIB,
        compute_capability=capability,
    )
    percent = None if utilization is None else int(utilization.gpu)
    return device, DeviceSample(memory.used // MIB, memory.free // MIB, percent)


def _optional(read: Callable[[Any], Any], handle: object) -> Any:  # noqa: ANN401  (pynvml has no types)
    """A figure that some GPUs and old drivers do not have; None then."""
    try:
        return read(handle)
    except pynvml.NVMLError as error:
        if _code(error) in _ABSENT_FIGURE:
            return None
        raise


def _code(error: pynvml.NVMLError) -> int:
    return int(error.value)


def _kind(error: pynvml.NVMLError) -> GpuTrouble:
    return _KINDS.get(_code(error), GpuTrouble.UNKNOWN)


def _failed(error: pynvml.NVMLError) -> Inventory:
    kind = _kind(error)
    cause = f"a GPU {_CAUSES[kind]}" if kind in _OF_ONE_DEVICE else _CAUSES[kind]
    if kind is GpuTrouble.UNKNOWN:
        cause = f"{cause} (code {_code(error)})"
    return Inventory(kind=kind, cause=cause)
