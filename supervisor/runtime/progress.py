"""How much of each running stream was delivered: a small table in shared memory of the kernel, for a kill -9 to leave.

A record says of one task: its attempt, how many token frames its readers may have seen, and the digest of those frames.
A write is a store to a mapped file, no system call; it is made before the frames are pushed, so the table never says
less than was delivered. The pages belong to the kernel: they outlive the daemon, not the machine.

A record has two copies that are written in turn, each with a checksum: a kill in the middle of one leaves the other.
Decides nothing about tasks. What is not a valid record is free; a table that cannot be made is kept in private memory,
which a crash takes along: everything then is as after a power loss. So is one that another daemon holds: it is locked
before anything in it is read or erased.
"""

import errno
import fcntl
import hashlib
import logging
import mmap
import os
import struct
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path
from zlib import crc32

from msgspec import Struct

from supervisor.runtime.private_files import UnsafeStateError, open_private
from supervisor.runtime.worker_records import current_boot_id

log = logging.getLogger(__name__)

RECORDS_MIN = 1024
RECORDS_MAX = 65_536
RECORDS_PER_SLOT = 4
"""A task keeps its record while it waits for another worker and until its end is on disk."""
DIGEST_BYTES = 16

_PARENT_MODE = 0o750
_HEADER = struct.Struct("<16s16sI")
_HEADER_BYTES = 4096
_MAGIC = b"orchctl progress"
_VERSION = 1
_COPY = struct.Struct("<Q16sIII16s")
_CRC = struct.Struct("<I")
_COPY_BYTES = 64
_RECORD_BYTES = 2 * _COPY_BYTES
_NOTHING = bytes(_RECORD_BYTES)


class Delivered(Struct, frozen=True, gc=False):
    """What readers of a task may have seen: `tokens` frames with this digest.

    `attempt` counts its runs so far, `daemons` those under which it ran.
    """

    attempt: int
    daemons: int
    tokens: int
    digest: bytes


def digest_of(frames: bytes) -> bytes:
    """The digest of the first token frames of a stream, in one piece."""
    return hashlib.blake2b(frames, digest_size=DIGEST_BYTES).digest()


class Track:
    """The record of one task."""

    __slots__ = ("_at", "_attempt", "_daemons", "_digest", "_hash", "_job", "_memory", "_tokens", "_turn", "index")

    def __init__(self, memory: mmap.mmap, index: int, job_id: str, before: Delivered | None, turn: int) -> None:
        self.index = index
        self._memory = memory
        self._at = _place_of(index)
        self._job = uuid.UUID(job_id).bytes
        self._turn = turn
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._attempt = before.attempt if before else 0
        self._daemons = before.daemons + 1 if before else 1
        self._tokens = before.tokens if before else 0
        self._digest = before.digest if before else self._hash.digest()

    def begin(self, attempt: int) -> None:
        """A run begins; what was delivered before stands."""
        self._attempt = attempt
        self._write()

    def advance(self, tokens: int, frames: bytes) -> None:
        """`frames` are about to be pushed; with them `tokens` token frames may have been seen, all of them given here.

        After a restart the first call must bring the whole stream again, from token 0 on.
        """
        self._hash.update(frames)
        self._tokens = tokens
        self._digest = self._hash.digest()
        self._write()

    def forgive(self) -> None:
        """The daemon goes without dying: it is none of those that the task lost."""
        self._daemons -= 1
        self._write()

    def _write(self) -> None:
        self._turn += 1
        copy = _COPY.pack(self._turn, self._job, self._attempt, self._daemons, self._tokens, self._digest)
        at = self._at + (self._turn & 1) * _COPY_BYTES
        self._memory[at : at + _COPY.size + _CRC.size] = copy + _CRC.pack(crc32(copy))


class ProgressTable:
    """All records of one daemon. Used on its event loop only."""

    def __init__(
        self, memory: mmap.mmap, found: Mapping[str, tuple[int, int, Delivered]], lock: int | None = None
    ) -> None:
        self._memory = memory
        self._lock = lock
        self._found = dict(found)
        self._tracks: dict[str, Track] = {}
        records = (len(memory) - _HEADER_BYTES) // _RECORD_BYTES
        taken = {index for index, _, _ in self._found.values()}
        self._free = [index for index in range(records) if index not in taken]
        self.untracked_total = 0
        """Runs that found no free record: a crash knows of them what the journal says."""

    @classmethod
    def open(cls, path: Path, slots: int) -> "ProgressTable":
        """Open or make the table; `slots` is the number of tasks that can run at one time.

        Where the file cannot be used, or another daemon uses it, this is logged and the table lives in private memory.
        """
        size = _size_for(slots)
        try:
            return cls._open(path, size)
        except (OSError, UnsafeStateError, ValueError) as error:
            cause = f"{type(error).__name__}: {error}"
        log.error("delivered tokens are not remembered over a crash", extra={"cause": cause})
        return cls(mmap.mmap(-1, size), {})

    @classmethod
    def _open(cls, path: Path, size: int) -> "ProgressTable":
        path.parent.mkdir(mode=_PARENT_MODE, parents=True, exist_ok=True)
        fd = open_private(path, os.O_RDWR | os.O_CREAT)
        try:
            _lock(fd, path)
            if os.fstat(fd).st_size > _size_for(RECORDS_MAX):
                os.ftruncate(fd, 0)
            size = max(size, _whole_size(os.fstat(fd).st_size))
            # Every block is taken now: a store to a page that the file system has no room for would be a SIGBUS.
            os.posix_fallocate(fd, 0, size)
            os.ftruncate(fd, size)
            memory = mmap.mmap(fd, size)
            return cls(memory, _take_over(memory), lock=fd)
        except BaseException:
            os.close(fd)
            raise

    def make_room(self, slots: int) -> None:
        """More tasks can run at one time than before. Where the file cannot grow, `untracked_total` will say so."""
        before, size = len(self._memory), _size_for(slots)
        if size <= before or self._lock is None:
            return
        try:
            os.posix_fallocate(self._lock, 0, size)
            self._memory.resize(size)
        except (OSError, ValueError, SystemError) as error:
            log.warning("the table of delivered tokens cannot grow", extra={"cause": str(error)})
            return
        first = (before - _HEADER_BYTES) // _RECORD_BYTES
        self._free = [*range(first, (size - _HEADER_BYTES) // _RECORD_BYTES), *self._free]

    @property
    def found(self) -> dict[str, Delivered]:
        """What an earlier daemon left, by job id; less as tasks take their records over."""
        return {job_id: delivered for job_id, (_, _, delivered) in self._found.items()}

    def keep_only(self, job_ids: Collection[str]) -> None:
        """Free the records that an earlier daemon left of tasks that have ended."""
        for job_id in self._found.keys() - set(job_ids):
            index, _, _ = self._found.pop(job_id)
            self._erase(index)

    def claim(self, job_id: str, attempt: int, *, is_fresh: bool) -> Track | None:
        """The record of a task whose run begins: its own if it has one, else a free one; None: there is none.

        Only a stream that is `is_fresh` can have a new one: the digest of another cannot be made up for.
        """
        track = self._tracks.get(job_id) or self._take(job_id, is_fresh=is_fresh)
        if track is None:
            self.untracked_total += 1
            return None
        self._tracks[job_id] = track
        track.begin(attempt)
        return track

    def _take(self, job_id: str, *, is_fresh: bool) -> Track | None:
        found = self._found.pop(job_id, None)
        if found is not None:
            index, turn, delivered = found
            return Track(self._memory, index, job_id, delivered, turn)
        return Track(self._memory, self._free.pop(), job_id, None, 0) if self._free and is_fresh else None

    def release(self, job_id: str) -> None:
        """The end of the task is on disk: nobody will ask any more. Harmless for a task without a record."""
        track = self._tracks.pop(job_id, None)
        found = self._found.pop(job_id, None)
        if track is not None:
            self._erase(track.index)
        elif found is not None:
            self._erase(found[0])

    def forgive(self) -> None:
        """This daemon replaces itself; no task may be taken for poison because of that. No run goes on."""
        for track in self._tracks.values():
            track.forgive()

    def close(self) -> None:
        """Let go of the memory; what is in the file stays. No track may be written to afterwards."""
        self._memory.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _erase(self, index: int) -> None:
        at = _place_of(index)
        self._memory[at : at + _RECORD_BYTES] = _NOTHING
        self._free.append(index)


def _lock(fd: int, path: Path) -> None:
    """The kernel drops it when its holder dies."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(errno.EWOULDBLOCK, "another daemon uses it", str(path)) from None


def _place_of(index: int) -> int:
    return _HEADER_BYTES + index * _RECORD_BYTES


def _size_for(slots: int) -> int:
    records = min(max(RECORDS_MIN, slots * RECORDS_PER_SLOT), RECORDS_MAX)
    return _HEADER_BYTES + records * _RECORD_BYTES


def _whole_size(size: int) -> int:
    return _HEADER_BYTES + max(0, size - _HEADER_BYTES) // _RECORD_BYTES * _RECORD_BYTES


def _take_over(memory: mmap.mmap) -> dict[str, tuple[int, int, Delivered]]:
    """The valid records by job id: index, turn, content; every other one is erased.

    After a reboot the file may be older than what was delivered. A count is then a lower bound, which is all that a
    comparison needs; but "nothing was delivered" is no longer known, and such records go.
    """
    boot = uuid.UUID(current_boot_id()).bytes
    is_ours, is_same_boot = _read_header(memory, boot)
    found: dict[str, tuple[int, int, Delivered]] = {}
    for index in range((len(memory) - _HEADER_BYTES) // _RECORD_BYTES):
        at = _place_of(index)
        record = memory[at : at + _RECORD_BYTES]
        if record == _NOTHING:
            continue
        best = _best_of(record) if is_ours else None
        if best is None or best[1] in found or not (is_same_boot or best[2].tokens):
            memory[at : at + _RECORD_BYTES] = _NOTHING
        else:
            turn, job_id, delivered = best
            found[job_id] = index, turn, delivered
    memory[: _HEADER.size] = _HEADER.pack(_MAGIC, boot, _VERSION)
    return found


def _read_header(memory: mmap.mmap, boot: bytes) -> tuple[bool, bool]:
    magic, written_boot, version = _HEADER.unpack_from(memory, 0)
    return (magic, version) == (_MAGIC, _VERSION), written_boot == boot


def _best_of(record: bytes) -> tuple[int, str, Delivered] | None:
    copies = [copy for copy in (_read(record, 0), _read(record, _COPY_BYTES)) if copy is not None]
    return max(copies, key=lambda copy: copy[0], default=None)


def _read(record: bytes, start: int) -> tuple[int, str, Delivered] | None:
    copy = record[start : start + _COPY.size]
    (crc,) = _CRC.unpack_from(record, start + _COPY.size)
    turn, job, attempt, daemons, tokens, digest = _COPY.unpack(copy)
    if crc != crc32(copy) or not turn:
        return None
    return turn, str(uuid.UUID(bytes=job)), Delivered(attempt, daemons, tokens, digest)
