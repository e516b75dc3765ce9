"""What the host's memory holds, from `/proc/meminfo` (proc(5)).

The file is opened once and read again from its beginning: a daemon that has no descriptor left goes on knowing.
"""

import functools
import os

_MEMINFO = "/proc/meminfo"
_BYTES_MAX = 64 * 1024


def free_mib() -> int:
    """What the host has free for processes."""
    return read()["MemAvailable"] // 1024


def total_mib() -> int:
    """All of it."""
    return read()["MemTotal"] // 1024


def used_bytes() -> int:
    """What processes and the kernel hold and would not give back."""
    figures = read()
    return (figures["MemTotal"] - figures["MemAvailable"]) * 1024


def read() -> dict[str, int]:
    """All figures, in KiB."""
    rows = (line.split() for line in os.pread(_descriptor(), _BYTES_MAX, 0).decode("ascii").splitlines())
    return {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) > 1}


@functools.cache
def _descriptor() -> int:
    return os.open(_MEMINFO, os.O_RDONLY | os.O_CLOEXEC)
