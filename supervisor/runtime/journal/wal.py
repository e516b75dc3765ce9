"""Reads the write-ahead log of the journal as bytes: is there a torn frame with a commit behind it?

SQLite plays a log up to its first bad frame and drops the rest without a word. That is right for a commit that a crash
cut off, which is always the last, though its frames may have reached the disk in any order; it is silent loss where a
flipped byte in the middle hides later commits. A frame's checksum goes on from the one before it, so a later frame is
proved whole by what is stored of its predecessor.

Format: https://sqlite.org/fileformat2.html#the_write_ahead_log. Changes nothing; decides only what is whole.
"""

import struct
from pathlib import Path

from msgspec import Struct

_MAGIC_LITTLE = 0x377F0682
_MAGIC_BIG = 0x377F0683
_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_SUM = struct.Struct(">2I")
_MASK = 0xFFFFFFFF
_PAGE_BYTES = 4096

Sum = tuple[int, int]


class LogGap(Struct, frozen=True):
    """A log whose whole frames do not lie in one piece from its start, and not for want of its last commit alone.

    `torn` counts the others among them.
    """

    torn: int
    whole: int


class _Log(Struct, frozen=True):
    """A log by its parts: `seeds` are the sums that the first frame may go on from."""

    data: bytes
    order: str
    page_bytes: int
    salts: tuple[int, int]
    seeds: tuple[Sum, Sum]
    is_header_whole: bool

    @property
    def frame_bytes(self) -> int:
        return _FRAME.size + self.page_bytes


def find_gap(path: Path) -> LogGap | None:
    """The gap in the log at `path`; None where it has none, or where there is no log.

    Raises:
        OSError: it cannot be read.
    """
    log = _read(path)
    if log is None:
        return None
    whole = [position for position, is_whole in enumerate(_judge(log)) if is_whole]
    if not whole or (log.is_header_whole and whole[-1] == len(whole) - 1):
        return None
    first_torn = next((place for place, position in enumerate(whole) if place != position), len(whole))
    if not _has_commit(log, 0 if not log.is_header_whole else first_torn, whole[-1]):
        return None
    return LogGap(torn=whole[-1] + 1 - len(whole), whole=len(whole))


def mend(source: Path, target: Path) -> None:
    """Write the whole frames of one log as another that SQLite plays to its end. For reading what is left, only.

    A commit that lost a frame lends its others to the next one, so pages may not fit each other: rows must be judged.

    Raises:
        OSError: it cannot be read or written.
    """
    log = _read(source)
    if log is None:
        return
    order = _MAGIC_BIG if log.order == ">" else _MAGIC_LITTLE
    head = _HEADER.pack(order, 3007000, log.page_bytes, 0, *log.salts, 0, 0)[:-8]
    running = _sum(log.order, head, (0, 0))
    pieces = [head, _SUM.pack(*running)]
    for position, is_whole in enumerate(_judge(log)):
        if is_whole:
            start = _HEADER.size + position * log.frame_bytes
            content = log.data[start : start + log.frame_bytes]
            running = _sum(log.order, content[:8] + content[_FRAME.size :], running)
            pieces += [content[:16], _SUM.pack(*running), content[_FRAME.size :]]
    target.write_bytes(b"".join(pieces))


def _has_commit(log: _Log, first: int, last: int) -> bool:
    """Whether a commit ends in a frame from `first` on and before `last`: it was on disk before `last` was written."""
    for position in range(first, last):
        _, pages_after_commit, *salts, _, _ = _FRAME.unpack_from(log.data, _HEADER.size + position * log.frame_bytes)
        if pages_after_commit and (salts[0], salts[1]) == log.salts:
            return True
    return False


def _read(path: Path) -> _Log | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(data) < _HEADER.size + _FRAME.size:
        return None
    magic, _, page_bytes, _, *salts, first, second = _HEADER.unpack_from(data)
    order = ">" if magic == _MAGIC_BIG else "<"
    computed = _sum(order, data[: _HEADER.size - 8], (0, 0))
    is_whole = magic in (_MAGIC_LITTLE, _MAGIC_BIG) and computed == (first, second)
    if not is_whole:
        page_bytes, salts = _PAGE_BYTES, list(_FRAME.unpack_from(data, _HEADER.size)[2:4])
    return _Log(data, order, page_bytes, (salts[0], salts[1]), (computed, (first, second)), is_whole)


def _judge(log: _Log) -> list[bool]:
    """Of each full frame, whether it is whole and of this log; the same place may hold one of an older log."""
    found: list[bool] = []
    seeds = log.seeds
    for start in range(_HEADER.size, len(log.data) - log.frame_bytes + 1, log.frame_bytes):
        page, _, *salts, first, second = _FRAME.unpack_from(log.data, start)
        stored = first, second
        if (salts[0], salts[1]) != log.salts:
            found.append(False)
            seeds = stored, stored
            continue
        content = log.data[start : start + 8] + log.data[start + _FRAME.size : start + log.frame_bytes]
        computed = [_sum(log.order, content, seed) for seed in dict.fromkeys(seeds)]
        found.append(page > 0 and stored in computed)
        seeds = stored, (stored if found[-1] else computed[0])
    return found


def _sum(order: str, data: bytes, seed: Sum) -> Sum:
    first, second = seed
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & _MASK
        second = (second + other + first) & _MASK
    return first, second
