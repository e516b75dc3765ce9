"""Keeps what was learned about needs of memory in one small file, over restarts of the daemon.

Written whole and in order from a side thread; the newest one wins. A file that cannot be read is named and the daemon
goes by its estimates: it learns anew.
"""

import asyncio
import logging
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from supervisor.core.effects import CommitNeeds
from supervisor.core.events import NeedsRestored
from supervisor.core.needs import LearnedNeed
from supervisor.runtime.private_files import UnsafeStateError, open_private, replace_private

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
        self._waiting: StoredNeeds | None = None
        self._writer: asyncio.Task[None] | None = None

    def commit(self, effect: CommitNeeds) -> None:
        """Store these in place of all before."""
        self._waiting = StoredNeeds(effect.entries)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while (stored := self._waiting) is not None:
            self._waiting = None
            try:
                await asyncio.to_thread(replace_private, self._path, msgspec.json.encode(stored))
            except (OSError, UnsafeStateError) as error:
                log.error("learned needs could not be stored", extra={"cause": str(error)})  # noqa: TRY400

    def read(self) -> NeedsRestored | None:
        """What an earlier daemon stored; None where there is nothing. Blocks."""
        try:
            with open(open_private(self._path, os.O_RDONLY), "rb") as file:  # noqa: PTH123  (a descriptor)
                stored = msgspec.json.decode(file.read(BYTES_MAX), type=StoredNeeds)
        except FileNotFoundError:
            return None
        except (OSError, UnsafeStateError, ValueError) as error:
            log.error("learned needs could not be read", extra={"cause": str(error)})  # noqa: TRY400
            return None
        return NeedsRestored(stored.entries)

    async def close(self) -> None:
        """Wait until the last ones are stored."""
        if self._writer is not None:
            await asyncio.wait([self._writer])
