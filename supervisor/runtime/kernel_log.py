"""Follows the kernel's log from now on: the second source of GPU faults, and it names the process.

Only lines of the kernel itself count (facility 0): what a program writes to /dev/kmsg has another one. Where the log
may not be read, NVML alone tells. Decides nothing about a line.
"""

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from supervisor.core.faults import XID_OFF_THE_BUS
from supervisor.runtime.gpu_events import EventSource, GpuEvent

log = logging.getLogger(__name__)

KMSG = Path("/dev/kmsg")
RECORD_BYTES_MAX = 8_192
RECORDS_PER_TURN_MAX = 256
TEXT_MAX = 300
_FACILITY_SHIFT = 3
_BUS = r"(?P<bus>[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2})"
_XID = re.compile(rf"NVRM: Xid \((?:PCI:)?{_BUS}(?:\.\d)?[^)]*\): (?P<xid>\d{{1,6}})(?:, pid='?(?P<pid>\d{{1,10}})\b)?")
_OFF_THE_BUS = re.compile(rf"NVRM: .*?GPU (?:at )?(?:PCI:)?{_BUS}.*fallen off the bus", re.DOTALL)


@dataclass(frozen=True, slots=True)
class KernelLine:
    """One record of the kernel. `at_us` are microseconds since boot."""

    at_us: int
    text: str


def parse_record(record: bytes) -> KernelLine | None:
    """A record as /dev/kmsg gives it, `priority,sequence,microseconds,flags;text`; None for a foreign one."""
    head, found, text = record.partition(b";")
    fields = head.split(b",")
    if not found or len(fields) < 3 or not (fields[0].isdigit() and fields[2].isdigit()):
        return None
    if int(fields[0]) >> _FACILITY_SHIFT:
        return None
    own = text.split(b"\n", 1)[0].replace(b"\\x0a", b"\n")
    return KernelLine(int(fields[2]), own.decode(errors="replace"))


def find_fault(line: KernelLine) -> GpuEvent | None:
    """The GPU fault that a line tells of: an XID in either form, or one of the two lines about a lost GPU."""
    text = line.text[:TEXT_MAX]
    if (xid := _XID.search(line.text)) is not None:
        pid = int(xid["pid"]) if xid["pid"] else None
        return GpuEvent(EventSource.KERNEL_LOG, int(xid["xid"]), bus_id=xid["bus"], pid=pid, text=text)
    if (lost := _OFF_THE_BUS.search(line.text)) is not None:
        return GpuEvent(EventSource.KERNEL_LOG, XID_OFF_THE_BUS, bus_id=lost["bus"], text=text)
    return None


class KernelLog:
    """Tells its subscribers of every line of the kernel from the moment of `start` on, on the event loop."""

    def __init__(self, path: Path = KMSG) -> None:
        self._path = path
        self._fd: int | None = None
        self._subscribers: list[Callable[[KernelLine], None]] = []

    @property
    def is_followed(self) -> bool:
        """Whether the log may be read."""
        return self._fd is not None

    def subscribe(self, tell: Callable[[KernelLine], None]) -> None:
        """Hear of every line; `tell` must not block."""
        self._subscribers.append(tell)

    def start(self) -> None:
        """Follow it from its present end on, where that is permitted."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            log.info("the kernel log is not read", extra={"cause": error.strerror})
            return
        with contextlib.suppress(OSError):  # a pipe has no end to go to
            os.lseek(fd, 0, os.SEEK_END)
        try:
            asyncio.get_running_loop().add_reader(fd, self._read)
        except OSError as error:
            os.close(fd)
            log.info("the kernel log is not read", extra={"cause": error.strerror})
            return
        self._fd = fd

    def _read(self) -> None:
        """Take what is there, in bounded turns, so that a flood never holds the event loop."""
        for _ in range(RECORDS_PER_TURN_MAX):
            assert self._fd is not None
            try:
                record = os.read(self._fd, RECORD_BYTES_MAX)
            except BlockingIOError:
                return
            except BrokenPipeError:  # overwritten before it was read: the next read goes on behind it
                continue
            except OSError as error:
                log.warning("the kernel log cannot be read any more", extra={"cause": error.strerror})
                record = b""
            if not record:
                self.close()
                return
            for each in record.splitlines():
                self._tell(each)

    def _tell(self, record: bytes) -> None:
        line = parse_record(record)
        if line is not None:
            for tell in self._subscribers:
                tell(line)

    def close(self) -> None:
        """Stop following."""
        if self._fd is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None
