"""One download at a time for each source, over all processes: who comes second waits and sees how far the first is.

The lock is the kernel's (flock), so it is gone with the process that held it, and what was fetched is still there.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from supervisor.store.faults import disk_fault
from supervisor.store.folders import held_folder, remove_tree, write_note

LOOK_EVERY_S = 0.2
DIR_MODE = 0o755
_PLAN = "plan.json"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pull is. `stage`: waiting (for another process), fetching, checking. Bytes; `total` None: not known."""

    stage: str
    done: int
    total: int | None


Tell = Callable[[Progress], None]


class Berth:
    """The folder of one download under way. `files` and `incoming` are to be written to while it is `held`."""

    def __init__(self, partial: Path, key: str) -> None:
        self.key = key
        self.folder = partial / key
        self.files = self.folder / "files"
        self.incoming = self.folder / "incoming"
        self._partial = partial
        self._holds = ExitStack()

    @contextmanager
    def held(self, tell: Tell) -> Iterator[None]:
        """Be the only one who works here. Waits for another process for as long as it lives. Raises StoreError."""
        with ExitStack() as self._holds:
            self._partial = self._holds.enter_context(held_folder(self._partial.parent, self._partial.name))
            fd = self._open_lock()
            try:
                while not _try_lock(fd) or not self._is_current(fd):
                    if not self._is_current(fd):  # somebody cleaned up between the opening and the lock
                        os.close(fd)
                        fd = self._open_lock()
                        continue
                    tell(Progress("waiting", self.bytes_there(), self.total()))
                    time.sleep(LOOK_EVERY_S)
                yield
            finally:
                os.close(fd)

    def clear(self) -> bool:
        """Throw away what lies here, unless somebody works on it. Gives whether it is gone; `partial` is held."""
        fd = self._open_lock()
        try:
            if not _try_lock(fd):
                return False
            self.discard()
            self._lock.unlink(missing_ok=True)
            return True
        finally:
            os.close(fd)

    def discard(self) -> None:
        """Throw away what lies here; only for the one who holds it."""
        remove_tree(self._partial, self.key)

    @property
    def _lock(self) -> Path:
        return self._partial / f"{self.key}.lock"

    def _open_lock(self) -> int:
        try:
            return os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise disk_fault(f"the lock of {self.key} in the store cannot be used", error) from None

    def _is_current(self, fd: int) -> bool:
        """Whether the file behind `fd` still is the lock."""
        try:
            return os.path.samestat(os.fstat(fd), self._lock.stat())
        except OSError:
            return False

    def prepare(self) -> None:
        """Make the folders, and hold them. Raises StoreError."""
        self.folder = self._holds.enter_context(held_folder(self._partial, self.key, DIR_MODE))
        self.files = self._holds.enter_context(held_folder(self.folder, "files", DIR_MODE))
        self.incoming = self._holds.enter_context(held_folder(self.folder, "incoming", DIR_MODE))

    @property
    def finished(self) -> Path:
        """The folder `files` as it is to be moved away, by its name."""
        return self.folder / "files"

    def announce(self, total: int) -> None:
        """Say for others how many bytes it will be."""
        with suppress(OSError):
            write_note(self.folder / _PLAN, msgspec.json.encode({"total": total}))

    def total(self) -> int | None:
        """What was announced."""
        try:
            return msgspec.json.decode((self.folder / _PLAN).read_bytes(), type=dict[str, int]).get("total")
        except (OSError, msgspec.MsgspecError):
            return None

    def bytes_there(self) -> int:
        """Bytes that are fetched so far."""
        there = 0
        for top in (self.files, self.incoming):
            for path in top.rglob("*"):
                with suppress(OSError):
                    there += path.stat().st_size if path.is_file() else 0
        return there


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
