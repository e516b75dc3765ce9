"""The kernel log as a source of GPU faults: which lines count, what they say, and that nobody else can write them."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from supervisor.runtime.gpu_events import EventSource, GpuEvent
from supervisor.runtime.kernel_log import KMSG, KernelLine, KernelLog, find_fault, parse_record
from tests.support.waiting import until

OWN = b"4,1,123456,-;"


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (OWN + b"NVRM: loading", KernelLine(123_456, "NVRM: loading")),
        (b"6,2,7,c,caller=T1;x;y", KernelLine(7, "x;y")),
        (OWN + b"one\\x0atwo", KernelLine(123_456, "one\ntwo")),
        (OWN + b"text\n SUBSYSTEM=pci", KernelLine(123_456, "text")),
        (b"12,1,123456,-;NVRM: Xid (PCI:0000:9b:00): 79", None),
        (b" SUBSYSTEM=pci", None),
        (b"4,1;too few", None),
        (b"x,1,2,-;no number", None),
        (b"", None),
    ],
)
def test_only_records_of_the_kernel_itself_are_lines(record: bytes, line: KernelLine | None) -> None:
    assert parse_record(record) == line


def xid(number: int, bus: str, pid: int | None, text: str) -> GpuEvent:
    return GpuEvent(EventSource.KERNEL_LOG, number, bus_id=bus, pid=pid, text=text)


@pytest.mark.parametrize(
    ("text", "number", "bus", "pid"),
    [
        ("NVRM: Xid (PCI:0000:9b:00): 119, pid=2131, name=x, Timeout waiting", 119, "0000:9b:00", 2131),
        ("NVRM: Xid (0000:9b:00): 31, pid=5", 31, "0000:9b:00", 5),
        ("NVRM: Xid (PCI:0000:C8:00.0): 13, pid='<unknown>', name=<unknown>", 13, "0000:C8:00", None),
        ("NVRM: Xid (PCI:0000:c8:00 GPU-I:05): 94, pid='77', name=x", 94, "0000:c8:00", 77),
        ("NVRM: Xid (PCI:0000:9b:00): 63, Row Remapper: New row", 63, "0000:9b:00", None),
        ("NVRM: GPU 0000:9b:00.0: GPU has fallen off the bus.", 79, "0000:9b:00", None),
        ("NVRM: The NVIDIA GPU 0000:9b:00.0\nNVRM: (PCI ID: 10de)\nNVRM: fallen off the bus", 79, "0000:9b:00", None),
    ],
)
def test_every_form_of_a_fault_is_read(text: str, number: int, bus: str, pid: int | None) -> None:
    assert find_fault(KernelLine(1, text)) == xid(number, bus, pid, text)


@pytest.mark.parametrize(
    "text",
    [
        "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.00",
        "Xid (PCI:0000:9b:00): 79",
        "NVRM: Xid (PCI:nonsense): 79",
        "NVRM: Xid (PCI:0000:9b:00): none",
        "a bus has fallen off the bus",
    ],
)
def test_other_lines_are_no_fault(text: str) -> None:
    assert find_fault(KernelLine(1, text)) is None


class Follower:
    """A log that is a pipe, and what was heard of it."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._write_end = os.open(path, os.O_RDWR)
        self.heard: list[str] = []
        self.log = KernelLog(path)
        self.log.subscribe(lambda line: self.heard.append(line.text))
        self.log.start()

    def write(self, *records: bytes) -> None:
        os.write(self._write_end, b"".join(record + b"\n" for record in records))

    def close(self) -> None:
        self.log.close()
        os.close(self._write_end)


@pytest.fixture
async def follower(tmp_path: Path) -> AsyncIterator[Follower]:
    made = Follower(tmp_path / "kmsg")
    yield made
    made.close()


async def test_every_line_of_the_kernel_is_told_in_order(follower: Follower) -> None:
    follower.write(OWN + b"one", b"12,1,1,-;a program's", OWN + b"two")
    await until(lambda: len(follower.heard) == 2)
    follower.write(OWN + b"three")
    await until(lambda: len(follower.heard) == 3)

    assert follower.heard == ["one", "two", "three"]
    assert follower.log.is_followed


async def test_two_subscribers_hear_the_same(follower: Follower) -> None:
    also: list[str] = []
    follower.log.subscribe(lambda line: also.append(line.text))
    follower.write(OWN + b"one")
    await until(lambda: also and follower.heard)

    assert also == follower.heard


async def test_a_log_that_may_not_be_read_is_left_alone(tmp_path: Path) -> None:
    log = KernelLog(tmp_path / "none")
    log.start()

    assert not log.is_followed
    log.close()


async def test_a_file_that_cannot_be_waited_for_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OWN + b"one\n")
    log = KernelLog(tmp_path / "file")
    log.start()

    assert not log.is_followed


async def test_a_log_that_ends_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    os.mkfifo(path)
    log = KernelLog(path)
    log.start()
    os.close(os.open(path, os.O_WRONLY))
    await until(lambda: not log.is_followed)

    assert not log.is_followed


def _find_record(fd: int, mark: bytes) -> bytes | None:
    """The next record with this mark, out of those that are there now."""
    with contextlib.suppress(OSError):
        while record := os.read(fd, 8_192):
            if mark in record:
                return record
    return None


async def test_a_program_that_writes_into_the_real_log_is_not_believed() -> None:
    """The kernel gives what a program writes another facility, whatever the program asks for."""
    mark = f"orchctl test {os.getpid()}".encode()
    try:
        fd = os.open(KMSG, os.O_RDWR | os.O_NONBLOCK)
        os.write(fd, b"<4>NVRM: Xid (PCI:0000:9b:00): 79, " + mark)
    except OSError as error:
        pytest.skip(f"/dev/kmsg may not be written here: {error.strerror}")
    record = _find_record(fd, mark)
    os.close(fd)
    if record is None:
        pytest.skip("the kernel did not keep what was written to /dev/kmsg (it limits the rate)")

    assert parse_record(record) is None
