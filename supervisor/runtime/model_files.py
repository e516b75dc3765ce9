"""Verifies model files (ORCH-3037, ORCH-3042): sha256 through the opened file, off the loop, kept while unchanged.

Bit-rotted weights load and talk garbage; no engine notices. A digest is computed once for each (device, inode, size,
mtime), so that a restart of a worker does not read gigabytes again.
"""

import asyncio
import hashlib
import os
import stat
from pathlib import Path

_CHUNK_BYTES = 4 * 1024 * 1024

Identity = tuple[int, int, int, int]


class ModelFileError(Exception):
    """The file is missing, unreadable or not the one that was named. One sentence for the operator."""


class ModelFiles:
    """Knows the digests of the files that it has read."""

    def __init__(self) -> None:
        self._known: dict[Identity, str] = {}

    async def verify(self, path: Path, digest: str) -> str:
        """Give the digest (`sha256:<hex>`) of the file, which must be `digest`. Raises ModelFileError."""
        found = await asyncio.to_thread(self._digest, path)
        if found != digest:
            raise ModelFileError(f"{path.name} is not the model that is configured: its digest is {found[:19]}…")
        return found

    def _digest(self, path: Path) -> str:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise ModelFileError(f"model file {path.name}: {error.strerror}") from error
        with os.fdopen(fd, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ModelFileError(f"model file {path.name} is not a regular file")
            identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if identity not in self._known:
                self._known[identity] = _read_digest(file.fileno())
            return self._known[identity]


def _read_digest(fd: int) -> str:
    sha256 = hashlib.sha256()
    buffer = bytearray(_CHUNK_BYTES)
    view = memoryview(buffer)
    while count := os.readv(fd, [buffer]):
        sha256.update(view[:count])
    return f"sha256:{sha256.hexdigest()}"
