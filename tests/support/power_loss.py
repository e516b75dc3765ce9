"""A disk that loses power: what a trace of system calls (power_trace.c) leaves when it is cut off after any of them.

What was written and not synced may be there, may be missing, or may be there in part, sector by sector. A name is
certain once its file or its folder was synced; until then it may be the old one. Acknowledgements are lines that the
traced program writes to a file called `acks`: they were said, whatever the disk did.
"""

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

SECTOR = 512
ACKS = "acks"
_HEAD = struct.Struct("6Q")


class Op(IntEnum):
    """As in power_trace.c."""

    WRITE = 1
    SYNC = 2
    CUT = 3
    RENAME = 4
    REMOVE = 5


@dataclass(frozen=True)
class Step:
    """One call that came back."""

    op: Op
    inode: int
    number: int
    path: str
    data: bytes


def read_trace(trace: Path) -> list[Step]:
    """All steps, in order."""
    raw, at, steps = trace.read_bytes(), 0, list[Step]()
    while at < len(raw):
        op, inode, number, _, path_bytes, data_bytes = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        path = raw[at : at + path_bytes].decode()
        data = raw[at + path_bytes : at + path_bytes + data_bytes]
        at += path_bytes + data_bytes
        steps.append(Step(Op(op), inode, number, path, data))
    return steps


@dataclass
class _File:
    """What is certain of one file, and what was done to it since."""

    certain: bytearray = field(default_factory=bytearray)
    since: list[Step] = field(default_factory=list)


class Disk:
    """Takes steps; `after_power_loss` writes what may be found afterwards."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._files: dict[int, _File] = {}
        self._names: dict[str, int] = {}
        self._pending: list[Step] = []
        self.acked: list[str] = []

    def take(self, step: Step) -> None:
        """One more call came back."""
        if Path(step.path).name == ACKS:
            self.acked += step.data.decode().split("\n")[:-1] if step.op is Op.WRITE else []
        elif step.op in {Op.RENAME, Op.REMOVE}:
            self._pending.append(step)
        elif step.op is Op.SYNC:
            self._sync(step)
        else:
            file = self._files.setdefault(step.inode, _File())
            file.since.append(step)
            if step.path not in self._names and all(each.path != step.path for each in self._pending):
                self._pending.append(step)

    def _sync(self, step: Step) -> None:
        if step.path == self._folder:
            for each in self._pending:
                _enter(self._names, each)
            self._pending.clear()
        elif step.inode in self._files:
            file = self._files[step.inode]
            for each in file.since:
                _apply(file.certain, each)
            file.since.clear()
            self._names[step.path] = step.inode
            self._pending = [each for each in self._pending if each.inode != step.inode or each.op is Op.RENAME]

    def after_power_loss(self, target: Path, chance: random.Random | None) -> None:
        """Without `chance` nothing survives that was not synced; with it each write and name may, in part."""
        names = dict(self._names)
        for each in self._pending:
            if chance is not None and chance.random() < 0.5:
                _enter(names, each)
        for path, inode in names.items():
            file = self._files.get(inode, _File())
            content = bytearray(file.certain)
            for each in file.since:
                if chance is not None and chance.random() < 0.5:
                    _apply(content, _torn(each, chance))
            place = target / Path(path).name
            place.write_bytes(content)
            place.chmod(0o600)


def _enter(names: dict[str, int], step: Step) -> None:
    if step.op is Op.RENAME:
        names.pop(step.path, None)
        names[step.data.decode()] = step.inode
    elif step.op is Op.REMOVE:
        names.pop(step.path, None)
    else:
        names[step.path] = step.inode


def _apply(content: bytearray, step: Step) -> None:
    if step.op is Op.CUT:
        del content[step.number :]
        content.extend(bytes(step.number - len(content)))
        return
    end = step.number + len(step.data)
    content.extend(bytes(max(end - len(content), 0)))
    content[step.number : end] = step.data


def _torn(step: Step, chance: random.Random) -> Step:
    """A write of which only the first sectors came to the disk, now and then."""
    if step.op is not Op.WRITE or chance.random() < 0.5:
        return step
    return Step(
        step.op, step.inode, step.number, step.path, step.data[: chance.randrange(0, len(step.data) + SECTOR, SECTOR)]
    )


def losses(steps: list[Step], folder: Path, every: int) -> Iterator[tuple[int, Disk]]:
    """The disk after every so-many-th step; the same object, which goes on afterwards."""
    disk = Disk(str(folder))
    for number, step in enumerate(steps):
        disk.take(step)
        if number % every == 0 or number == len(steps) - 1:
            yield number, disk
