"""Looks at the NVIDIA driver: /proc, the device nodes, and NVML with a deadline. Judges nothing, changes nothing.

NVML can hang for many seconds where a GPU is in trouble and cannot be interrupted: it is asked in a thread that is left
behind when it is late, and the program ends without it.
"""

import os
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from orchctl.doctor.facts import DriverFacts, FileFact, Gpu, VramHolder

DEADLINE_S = 5.0
MODULE = Path("/proc/driver/nvidia/version")
_VERSION = re.compile(r"(?:Kernel Module(?: for \S+)?|Open Kernel Module.*?)\s+(\d+\.\d+(?:\.\d+)?)\s")


class _Nvml(Struct):
    """What NVML said."""

    library: str | None = None
    trouble: str | None = None
    is_mismatch: bool = False
    gpus: tuple[Gpu, ...] = ()
    holders: tuple[VramHolder, ...] = ()


def gather_driver(our_pids: frozenset[int], module: Path = MODULE) -> DriverFacts:
    """Everything about the driver. `our_pids` are the engines of the daemon that runs."""
    version = parse_module(_text(module))
    said = _ask_nvml(our_pids)
    return DriverFacts(
        module=version,
        library=said.library,
        trouble=said.trouble,
        is_mismatch=said.is_mismatch,
        gpus=said.gpus,
        holders=said.holders,
        has_uvm="nvidia-uvm" in _text(Path("/proc/devices")),
        nodes=tuple(_nodes()),
    )


def parse_module(text: str) -> str | None:
    """The version in /proc/driver/nvidia/version; None for no driver."""
    found = _VERSION.search(text)
    return found[1] if found else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _nodes() -> Iterator[FileFact]:
    for path in sorted(Path("/dev").glob("nvidia*")):
        found = path.lstat()
        yield FileFact(path=str(path), mode=found.st_mode & 0o777, uid=found.st_uid, gid=found.st_gid)


def _ask_nvml(our_pids: frozenset[int]) -> _Nvml:
    found: list[_Nvml] = []
    thread = threading.Thread(target=lambda: found.append(_look(our_pids)), name="nvml", daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    return found[0] if found else _Nvml(trouble=f"it did not answer within {DEADLINE_S:g} s")


def _look(our_pids: frozenset[int]) -> _Nvml:
    import pynvml  # noqa: PLC0415  (only the doctor needs it, and it loads the library)

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        mismatch = int(error.value) == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
        return _Nvml(trouble=str(error), is_mismatch=mismatch)
    said = _Nvml()
    try:
        said.library = pynvml.nvmlSystemGetDriverVersion()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        said.gpus = tuple(_gpu(pynvml, index, handle) for index, handle in enumerate(handles))
        said.holders = tuple(
            each for index, handle in enumerate(handles) for each in _holders(pynvml, index, handle, our_pids)
        )
    except pynvml.NVMLError as error:
        said.trouble = str(error)
    finally:
        _quietly(pynvml, pynvml.nvmlShutdown)
    return said


def _gpu(nvml: Any, index: int, handle: object) -> Gpu:  # noqa: ANN401  (pynvml has no types)
    mode = _quietly(nvml, lambda: nvml.nvmlDeviceGetPersistenceMode(handle))
    return Gpu(
        index=index, name=str(nvml.nvmlDeviceGetName(handle)), is_persistent=None if mode is None else bool(mode)
    )


def _holders(nvml: Any, index: int, handle: object, our_pids: frozenset[int]) -> Iterator[VramHolder]:  # noqa: ANN401  (as above)
    asks = (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses)
    running = {each.pid: each for ask in asks for each in _quietly(nvml, partial(ask, handle)) or ()}
    for pid, process in sorted(running.items()):
        name = _text(Path(f"/proc/{pid}/comm")).strip() or "unknown"
        yield VramHolder(
            gpu=index, pid=pid, name=name, used_bytes=process.usedGpuMemory, is_ours=is_ours(pid, our_pids)
        )


def is_ours(pid: int, engines: frozenset[int]) -> bool:
    """Whether a process is an engine of ours or was started by one: engines lead a session of their own."""
    try:
        return pid in engines or os.getsid(pid) in engines
    except (OSError, OverflowError):
        return False


def _quietly(nvml: Any, ask: Callable[[], Any]) -> Any:  # noqa: ANN401  (as above)
    """What some GPUs and old drivers cannot say is None."""
    try:
        return ask()
    except nvml.NVMLError:
        return None
