"""Keeps what was learned about needs of memory in one small file, over restarts of the daemon.

Written whole and in order from a side thread; the newest one wins. A file that cannot be read is named and the daemon
goes by its estimates: it learns anew.
"""

import logging
from pathlib import Path

from msgspec import Struct

from supervisor.core.effects import CommitNeeds
from supervisor.core.events import NeedsRestored
from supervisor.core.needs import LearnedNeed
from supervisor.runtime.kept_file import KeptFile, UnreadableError, read_kept

NAME = "needs.json"
BYTES_MAX = 8 * 1024 * 1024
log = logging.getLogger(__name__)


class StoredNeeds(Struct, frozen=True):
    """The file."""

    entries: tuple[LearnedNeed, ...]
    version: int = 1


class NeedsFile:
    """`commit` is the hand of CommitNeeds."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / NAME
        self._file = KeptFile[StoredNeeds](self._path, "learned needs")

    def commit(self, effect: CommitNeeds) -> None:
        """Store these in place of all before."""
        self._file.store(StoredNeeds(effect.entries))

    def read(self) -> NeedsRestored | None:
        """What an earlier daemon stored; None where there is nothing. Blocks."""
        try:
            stored = read_kept(self._path, StoredNeeds, BYTES_MAX)
        except UnreadableError as error:
            log.error("learned needs could not be read", extra={"cause": str(error)})  # noqa: TRY400
            return None
        return None if stored is None else NeedsRestored(stored.entries)

    async def close(self) -> None:
        """Wait until the last ones are stored."""
        await self._file.close()
