"""A small CUDA process without a framework: takes memory of the one GPU that it sees, and holds it until told to end.

    CUDA_VISIBLE_DEVICES=GPU-... python -m tools.cuda_holder MIB

Writes `holding` once it has the memory, or `failed: <call> gave <code>` and exits with 3; ends when its input closes.
"""

import ctypes
import sys

LIBRARY = "libcuda.so.1"
EXIT_FAILED = 3
MIB = 1 << 20


class CudaError(Exception):
    """A call of the driver failed. `<call> gave <code>`."""


def take(mib: int) -> None:
    """A context on the first device, and memory in it. Raises CudaError."""
    try:
        cuda = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise CudaError(f"loading {LIBRARY} gave {error}") from error
    device, context, address = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    _must(cuda, "cuInit", ctypes.c_uint(0))
    _must(cuda, "cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
    _must(cuda, "cuCtxCreate_v2", ctypes.byref(context), ctypes.c_uint(0), device)
    _must(cuda, "cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(mib * MIB))


def _must(cuda: ctypes.CDLL, name: str, *arguments: object) -> None:
    code = getattr(cuda, name)(*arguments)
    if code:
        raise CudaError(f"{name} gave {code}")


def main() -> int:
    """Take, say so, wait."""
    try:
        take(int(sys.argv[1]))
    except CudaError as error:
        print(f"failed: {error}", flush=True)
        return EXIT_FAILED
    print("holding", flush=True)
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
