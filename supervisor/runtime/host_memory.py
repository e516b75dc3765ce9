"""What the host's memory holds, from `/proc/meminfo` (proc(5)).

The file is opened once and read again from its beginning: a daemon that has no descriptor left goes on knowing.
"""

import functools
import os
from typing import NamedTuple

_MEMINFO = "/proc/meminfo"
_BYTES_MAX = 64 * 1024


class HostMemory(NamedTuple):
    """All of it; what is free for processes; what they and the kernel hold and would not give back."""

    total_mib: int
    free_mib: int
    used_bytes: int


def look() -> HostMemory:
    """As it is now."""
    rows = (line.split() for line in os.pread(_descriptor(), _BYTES_MAX, 0).decode("ascii").splitlines())
    kib = {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) > 1}
    total, free = kib["MemTotal"], kib["MemAvailable"]
    return HostMemory(total // 1024, free // 1024, (total - free) * 1024)


@functools.cache
def _descriptor() -> int:
    return os.open(_MEMINFO, os.O_RDONLY | os.O_CLOEXEC)
