"""Remembers the engine processes that run, so that a restarted daemon finds those that outlived it.

One small file per incarnation, mode 0600, for it holds the worker's key. Says whether a process is the recorded one;
never signals anything (see `orphans`) and never guesses: a process is ours by boot id and start time, or it is not.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import msgspec
from msgspec import Meta, Struct

from supervisor.runtime.private_files import (
    UnsafeStateError,
    ensure_private_dir,
    open_private,
    replace_private,
    sync_dir,
)

RECORD_BYTES_MAX = 16_384
_PREFIX = "worker-"
_SUFFIX = ".json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STAT_STATE = 0
_STAT_PARENT = 1
_STAT_SESSION = 3
_STAT_STARTTIME = 19  # field 22 of proc_pid_stat(5), counted from the state, field 3
_DEAD_STATES = ("Z", "X", "x")


class WorkerRecord(Struct, frozen=True, kw_only=True):
    """One running engine process. `start_ticks` is its start in clock ticks since boot; `pid` leads its own session.

    `mark` is what it inherited, `devices` the UUIDs of its mask; `launch_digest` says what it was started with, without
    port and key; `model_file` is the file whose digest was read: device, inode, size, time of its last change in ns.
    `beside` are the files beside the model in the same way, and their digests, in the order of the command line.
    """

    pool_id: str
    incarnation: int
    pid: Annotated[int, Meta(ge=2)]
    start_ticks: int
    boot_id: str
    port: Annotated[int, Meta(ge=1, le=65_535)]
    api_key: str
    mark: str
    engine: str
    devices: tuple[str, ...]
    model_digest: str
    model_file: tuple[int, int, int, int] | None = None
    beside: tuple[tuple[int, int, int, int], ...] = ()
    beside_sha256: tuple[str, ...] = ()
    launch_digest: str

    @property
    def api_key_digest(self) -> str:
        """SHA-256 of the key in hex, to be shown or compared where the key itself must not appear."""
        return hashlib.sha256(self.api_key.encode()).hexdigest()

    def __repr__(self) -> str:
        """Without the key: records end up in logs."""
        return f"WorkerRecord({self.pool_id}#{self.incarnation}, pid={self.pid}, port={self.port})"


class ProcessFacts(Struct, frozen=True):
    """What the kernel says of a live process."""

    parent: int
    session: int
    start_ticks: int


class WorkerRecords(Struct, frozen=True):
    """All readable records, and the names of the files that were not."""

    records: tuple[WorkerRecord, ...]
    unreadable: tuple[str, ...]


def current_boot_id() -> str:
    """The id of this boot of the kernel."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


def process_facts(pid: int) -> ProcessFacts | None:
    """Session and start time of a process; None where there is none, or where it is dead and not yet reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name stands in parentheses and may hold anything, parentheses included.
    fields = stat.rpartition(b")")[2].decode("ascii").split()
    if fields[_STAT_STATE] in _DEAD_STATES:
        return None
    parent, session, start_ticks = (int(fields[at]) for at in (_STAT_PARENT, _STAT_SESSION, _STAT_STARTTIME))
    return ProcessFacts(parent=parent, session=session, start_ticks=start_ticks)


def is_same_process(record: WorkerRecord) -> bool:
    """Whether the recorded process still runs: same boot, same pid, same start time."""
    if record.boot_id != current_boot_id():
        return False
    facts = process_facts(record.pid)
    return facts is not None and facts.start_ticks == record.start_ticks


def write(state_dir: Path, record: WorkerRecord) -> None:
    """Store the record, whole or not at all, also over a crash. Blocks for an fsync.

    Raises:
        UnsafeStateError, OSError: it is not stored.
    """
    ensure_private_dir(state_dir)
    replace_private(_path(state_dir, record.pool_id, record.incarnation), msgspec.json.encode(record))


def remove(state_dir: Path, pool_id: str, incarnation: int) -> None:
    """Forget one incarnation; nothing happens where it is not recorded. Another incarnation's record stays.

    Raises:
        OSError: it could not be removed.
    """
    path = _path(state_dir, pool_id, incarnation)
    if path.exists():
        path.unlink()
        sync_dir(state_dir)


def read_all(state_dir: Path) -> WorkerRecords:
    """Read every record of the directory, by pool and incarnation. Garbage is named, not raised, and stays in place.

    Raises:
        OSError: the directory cannot be listed; a missing one is empty.
    """
    if not state_dir.exists():
        return WorkerRecords((), ())
    records: list[WorkerRecord] = []
    unreadable: list[str] = []
    for path in sorted(state_dir.glob(f"{_PREFIX}*{_SUFFIX}")):
        try:
            records.append(_read(path))
        except (OSError, UnsafeStateError, ValueError):  # msgspec's errors are ValueErrors
            unreadable.append(path.name)
    return WorkerRecords(tuple(sorted(records, key=_order)), tuple(unreadable))


def discard(state_dir: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Remove unreadable files that `read_all` named, once they have been reported; the names of those that stay."""
    stay = []
    for name in names:
        try:
            (state_dir / Path(name).name).unlink(missing_ok=True)
        except OSError:  # a folder, or not ours
            stay.append(name)
    return tuple(stay)


def _read(path: Path) -> WorkerRecord:
    with open(open_private(path, os.O_RDONLY), "rb") as file:  # noqa: PTH123  (a descriptor, not a path)
        data = file.read(RECORD_BYTES_MAX + 1)
    if len(data) > RECORD_BYTES_MAX:
        raise ValueError(f"{path.name} is too large for a record")
    return msgspec.json.decode(data, type=WorkerRecord)


def _path(state_dir: Path, pool_id: str, incarnation: int) -> Path:
    return state_dir / f"{_PREFIX}{quote(pool_id, safe='')}-{incarnation}{_SUFFIX}"


def _order(record: WorkerRecord) -> tuple[str, int]:
    return record.pool_id, record.incarnation
