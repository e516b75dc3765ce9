"""The library's file, which an upgrade of the driver replaces under a process that has it loaded.

pynvml loads `libnvidia-ml.so.1` once. Loaded from the old driver it refuses the new kernel module for good
(NVML_ERROR_LIB_RM_VERSION_MISMATCH), so a daemon that kept it would have to be restarted. `take_new` takes what the
package left in its place. The dynamic loader answers a name under which it loaded something before (dlopen(3)), so
each file is given a name that was never used. A package that puts its library into another folder is not followed.
"""

import ctypes
import os

import pynvml

_LINK_MAP = 2
"""RTLD_DI_LINKMAP of dlinfo(3)."""


class _LinkMap(ctypes.Structure):
    """The head of `struct link_map` (link.h)."""

    _fields_ = (("address", ctypes.c_void_p), ("name", ctypes.c_char_p))


class NvmlLibrary:
    """Which file pynvml's functions are from. One per process, as pynvml's own state is."""

    def __init__(self) -> None:
        self._path: bytes | None = None
        self._loaded: dict[tuple[int, int], ctypes.CDLL] = {}

    def take_new(self) -> bool:
        """Let pynvml use what lies where the loader found its library. Whether that is another library than before.

        NVML must be shut down and nobody inside it. The old library stays mapped.
        """
        current = pynvml.nvmlLib
        if current is None:
            return False
        try:
            self._path = self._path or _path_of(current)
            library = self._load(self._path)
        except OSError:  # not there, half written, or no library
            return False
        if _handle(library) == _handle(current):
            return False
        with pynvml.libLoadLock:
            pynvml.nvmlLib = library
            pynvml._nvmlGetFunctionPointer_cache.clear()  # noqa: SLF001  # it holds the old one's
        return True

    def _load(self, path: bytes) -> ctypes.CDLL:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            file = (status.st_dev, status.st_ino)
            if file not in self._loaded:
                never_used = "./" * len(self._loaded)
                self._loaded[file] = ctypes.CDLL(f"/proc/self/fd/{never_used}{descriptor}")
            return self._loaded[file]
        finally:
            os.close(descriptor)


def _handle(library: ctypes.CDLL) -> int:
    handle: int = library._handle  # noqa: SLF001  # documented under this name
    return handle


def _path_of(library: ctypes.CDLL) -> bytes:
    """The path that the loader's search came to."""
    found = ctypes.POINTER(_LinkMap)()
    if ctypes.CDLL(None).dlinfo(ctypes.c_void_p(_handle(library)), _LINK_MAP, ctypes.byref(found)):
        raise FileNotFoundError("the dynamic loader does not know the NVML library")
    name: bytes = found.contents.name
    return name
