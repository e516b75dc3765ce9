"""Whether the kernel says that it killed a process for want of memory: one look through its ring of messages.

Only lines of the kernel itself count (facility 0): what a program writes to /dev/kmsg has another one. A pid alone is
not enough, for it may have belonged to somebody else before: the line must be younger than the process. Where the log
may not be read, the answer is no. Blocks: in a side thread.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

KMSG = Path("/dev/kmsg")
RECORD_BYTES_MAX = 8_192
RECORDS_MAX = 100_000
_FACILITY_SHIFT = 3
_KILLED = re.compile(rb"ut of memory[^:]*: Killed process (\d+) \(")


def is_killed_by_kernel(pid: int, *, since_us: int, log: Path = KMSG) -> bool:
    """Whether a line younger than `since_us` (microseconds since boot) names `pid` as killed for want of memory."""
    return names(_records(log), pid, since_us=since_us)


def names(records: Iterable[bytes], pid: int, *, since_us: int) -> bool:
    """The same over records as /dev/kmsg gives them: `priority,sequence,microseconds,flags;text`."""
    for record in records:
        head, _, text = record.partition(b";")
        fields = head.split(b",")
        if len(fields) < 3 or not (fields[0].isdigit() and fields[2].isdigit()):
            continue
        is_kernels = int(fields[0]) >> _FACILITY_SHIFT == 0
        found = _KILLED.search(text)
        if found and is_kernels and int(found[1]) == pid and int(fields[2]) >= since_us:
            return True
    return False


def _records(log: Path) -> Iterator[bytes]:
    """Every record that the ring still holds."""
    try:
        fd = os.open(log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        for _ in range(RECORDS_MAX):
            with contextlib.suppress(BrokenPipeError):  # overwritten meanwhile: the next read goes on behind it
                yield os.read(fd, RECORD_BYTES_MAX)
    except OSError:  # BlockingIOError: nothing more
        return
    finally:
        os.close(fd)
