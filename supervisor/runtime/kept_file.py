"""One value in one small private file of the state folder, as JSON: read at start, written whole, the newest one wins.

Writing is done in order, from a side thread. A value that cannot be stored (a full disk, no descriptor) is tried again
until it is, or a newer one is there. What a file that cannot be read means is its owner's to say.
"""

import asyncio
import logging
import os
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from supervisor.runtime.private_files import UnsafeStateError, open_private, replace_private

T = TypeVar("T", bound=Struct)
log = logging.getLogger(__name__)

RETRY_S = 2.0


class UnreadableError(Exception):
    """There is a file, and it cannot be used. One sentence."""


def read_kept(path: Path, kind: type[T], bytes_max: int | None = None) -> T | None:
    """What the file holds, None where there is none. Blocks. Raises UnreadableError."""
    try:
        with open(open_private(path, os.O_RDONLY), "rb") as file:  # noqa: PTH123  (a descriptor)
            return msgspec.json.decode(file.read(bytes_max), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, UnsafeStateError, ValueError) as error:  # msgspec's errors are ValueErrors
        raise UnreadableError(str(error)) from error


class KeptFile(Generic[T]):
    """`what` names the value in the log where it cannot be stored."""

    def __init__(self, path: Path, what: str, *, retry_s: float = RETRY_S) -> None:
        self._path = path
        self._what = what
        self._retry_s = retry_s
        self._retry: asyncio.TimerHandle | None = None
        self._said: str | None = None
        self._waiting: T | None = None
        self._failed: T | None = None
        self._writer: asyncio.Task[None] | None = None

    def store(self, value: T) -> None:
        """Keep this in place of all before; nobody waits for it."""
        self._waiting = value
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self._retry = self._failed = None
        while (value := self._waiting) is not None:
            self._waiting = None
            try:
                await asyncio.to_thread(replace_private, self._path, msgspec.json.encode(value))
            except (OSError, UnsafeStateError) as error:
                if self._waiting is None:
                    self._failed = value
                    self._retry = asyncio.get_running_loop().call_later(self._retry_s, self.store, value)
                    self._say(str(error))
            else:
                self._said = None

    def _say(self, cause: str) -> None:
        if cause != self._said:
            self._said = cause
            log.error(f"{self._what} could not be stored", extra={"cause": cause})  # noqa: G004

    async def wait_stored(self, within_s: float) -> None:
        """Until what was given so far is on disk or could not be stored; no longer than this."""
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=within_s)

    async def close(self) -> None:
        """Wait until the last value is stored; one that could not be is tried once more."""
        if self._writer is not None:
            await asyncio.wait([self._writer])
        if (value := self._failed) is not None:
            self._waiting = value
            await self._write()
        if self._retry is not None:
            self._retry.cancel()
