"""Whether the head of a file is what its ending says. A page that was saved under a model's name is found here.

Reads a few bytes. It says nothing about the weights: the digest does.
"""

import os

from supervisor.store.faults import StoreError
from supervisor.store.names import shown

GGUF_VERSIONS = range(1, 16)
SAFETENSORS_HEAD_MAX = 100_000_000


def require_sane(fd: int, name: str) -> None:
    """Raises StoreError for a GGUF or safetensors file that cannot be one."""
    head, size = os.pread(fd, 9, 0), os.fstat(fd).st_size
    if name.endswith(".gguf"):
        is_sane = head[:4] == b"GGUF" and int.from_bytes(head[4:8], "little") in GGUF_VERSIONS and size > 24
    elif name.endswith(".safetensors"):
        length = int.from_bytes(head[:8], "little")
        is_sane = head[8:9] == b"{" and 2 <= length <= min(SAFETENSORS_HEAD_MAX, size - 8)
    else:
        is_sane = True
    if not is_sane:
        raise StoreError(f"{shown(name)} is not a model file of its kind", "check the source; nothing was kept")
