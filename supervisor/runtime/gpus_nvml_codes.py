"""NVML's return codes in our words: which trouble each one is, and the sentence for an operator. Pure."""

import pynvml

from supervisor.runtime.gpus import GpuTrouble, Inventory

_KINDS = {
    pynvml.NVML_ERROR_UNINITIALIZED: GpuTrouble.UNINITIALIZED,
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
    pynvml.NVML_ERROR_UNKNOWN: GpuTrouble.ACCESS_LOST,
}

CAUSES = {
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
    GpuTrouble.UNINITIALIZED: "NVML was shut down while it was asked",
    GpuTrouble.ACCESS_LOST: "NVML failed as it does when access to the GPU devices is taken away",
    GpuTrouble.UNKNOWN: "NVML failed for a reason that is not known",
}

OF_ONE_DEVICE = frozenset(
    {GpuTrouble.GPU_LOST, GpuTrouble.RESET_REQUIRED, GpuTrouble.NOT_FOUND, GpuTrouble.NOT_SUPPORTED}
)
"""What says for certain that the GPU that was asked cannot be used; the others can."""
OF_ALL_DEVICES = frozenset(
    {
        GpuTrouble.LIBRARY_MISSING,
        GpuTrouble.DRIVER_NOT_LOADED,
        GpuTrouble.VERSION_MISMATCH,
        GpuTrouble.UNINITIALIZED,
    }
)
"""What says nothing about the GPU that was asked, and spoils the whole look. Everything else is an answer denied."""

_CODED = frozenset({GpuTrouble.ACCESS_LOST, GpuTrouble.UNKNOWN})


def code_of(error: pynvml.NVMLError) -> int:
    """The number."""
    return int(error.value)


def kind_of(error: pynvml.NVMLError) -> GpuTrouble:
    """Which trouble it is."""
    return _KINDS.get(code_of(error), GpuTrouble.UNKNOWN)


def failed(error: pynvml.NVMLError) -> Inventory:
    """A look that came to nothing."""
    return Inventory(kind=kind_of(error), cause=_sentence(error, "a GPU ", ""))


def cause_of(index: int, error: pynvml.NVMLError) -> str:
    """The sentence about one GPU."""
    return _sentence(error, f"GPU {index} ", f"GPU {index}: ")


def _sentence(error: pynvml.NVMLError, subject: str, heading: str) -> str:
    """`subject` stands before what befell a GPU, `heading` before any other cause."""
    kind = kind_of(error)
    code = f" (code {code_of(error)})" if kind in _CODED else ""
    return f"{subject if kind in OF_ONE_DEVICE else heading}{CAUSES[kind]}{code}"
