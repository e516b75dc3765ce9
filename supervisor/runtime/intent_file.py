"""Keeps what operators asked for in one small file, so that a restart does not forget it.

Written whole and in order from a side thread; the newest one wins. A file that cannot be read is put aside and named,
and the daemon starts without wishes: a pool that serves again is better than none that starts.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from supervisor.core.effects import CommitIntent
from supervisor.core.events import IntentRestored
from supervisor.core.intent import Intent
from supervisor.runtime.private_files import UnsafeStateError, open_private, put_aside, replace_private

NAME = "intent.json"
log = logging.getLogger(__name__)


class Stored(Struct, frozen=True):
    """The file: the wishes, and both clocks when they were written. Milliseconds."""

    intent: Intent
    monotonic_ms: float
    wall_ms: float


class IntentFile:
    """`commit` is the hand of CommitIntent."""

    def __init__(self, state_dir: Path, now_ms: Callable[[], float]) -> None:
        self._path = state_dir / NAME
        self._now_ms = now_ms
        self._waiting: Stored | None = None
        self._writer: asyncio.Task[None] | None = None
        self._is_barred = False
        """Whether there are wishes that can neither be read nor moved: nothing is written over them."""

    def commit(self, effect: CommitIntent) -> None:
        """Store these wishes in place of all before."""
        if self._is_barred:
            log.error("wishes of operators are not stored: a file that cannot be read is in their place")
            return
        self._waiting = Stored(effect.intent, self._now_ms(), time.time() * 1000)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while (stored := self._waiting) is not None:
            self._waiting = None
            try:
                await asyncio.to_thread(replace_private, self._path, msgspec.json.encode(stored))
            except (OSError, UnsafeStateError) as error:
                log.error("wishes of operators could not be stored", extra={"cause": str(error)})  # noqa: TRY400

    def read(self) -> IntentRestored | None:
        """What an earlier daemon stored; None where there is nothing. Blocks."""
        try:
            with open(open_private(self._path, os.O_RDONLY), "rb") as file:  # noqa: PTH123  (a descriptor)
                stored = msgspec.json.decode(file.read(), type=Stored)
        except FileNotFoundError:
            return None
        except (OSError, UnsafeStateError, ValueError) as error:
            self._put_aside(str(error))
            return None
        passed_ms = max(time.time() * 1000 - stored.wall_ms, 0.0)
        return IntentRestored(stored.intent, self._now_ms() - passed_ms - stored.monotonic_ms)

    def _put_aside(self, cause: str) -> None:
        try:
            kept = put_aside(self._path)
        except OSError as error:
            self._is_barred = True
            facts = {"cause": cause, "kept_because": error.strerror}
            log.error("wishes of operators could not be read, nor put aside", extra=facts)  # noqa: TRY400
        else:
            log.error("wishes of operators could not be read", extra={"cause": cause, "put_aside": kept.name})

    async def close(self) -> None:
        """Wait until the last wishes are stored."""
        if self._writer is not None:
            await asyncio.wait([self._writer])
