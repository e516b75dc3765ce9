"""Keeps what operators asked for in one small file, so that a restart does not forget it.

Written whole and in order from a side thread; the newest one wins. A file that cannot be read is put aside and named,
and the daemon starts without wishes: a pool that serves again is better than none that starts.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from supervisor.core.effects import CommitIntent
from supervisor.core.events import IntentRestored
from supervisor.core.intent import Intent
from supervisor.runtime.kept_file import KeptFile, UnreadableError, read_kept
from supervisor.runtime.private_files import put_aside

NAME = "intent.json"
STORED_WITHIN_S = 5.0
"""How long an operator waits for a disk that hangs, before the answer is given all the same."""
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
        self._file = KeptFile[Stored](self._path, "wishes of operators")
        self._is_barred = False
        """Whether there are wishes that can neither be read nor moved: nothing is written over them."""

    def commit(self, effect: CommitIntent) -> None:
        """Store these wishes in place of all before."""
        if self._is_barred:
            log.error("wishes of operators are not stored: a file that cannot be read is in their place")
            return
        self._file.store(Stored(effect.intent, self._now_ms(), time.time() * 1000))

    def read(self) -> IntentRestored | None:
        """What an earlier daemon stored; None where there is nothing. Blocks."""
        try:
            stored = read_kept(self._path, Stored)
        except UnreadableError as error:
            self._put_aside(str(error))
            return None
        if stored is None:
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

    async def wait_stored(self) -> None:
        """Until the last wishes are stored: who is told that something is done finds it so after a crash."""
        await self._file.wait_stored(STORED_WITHIN_S)

    async def close(self) -> None:
        """Wait until the last wishes are stored."""
        await self._file.close()
