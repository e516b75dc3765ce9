"""Files that the daemon takes up again when they change: API keys, the TLS certificate. Knows not what is in them.

A file that cannot be used leaves the former one in force, is one line in the log and a cause in the status. It is tried
again at each look: it may be the daemon that could not read it just then, and a key may have been revoked in it.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

LOOK_EVERY_S = 2.0

log = logging.getLogger("orchctl")

Marks = tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Files that mean something together. `take_up` runs in a thread and raises one of `faults` with a sentence."""

    name: str
    paths: tuple[Path, ...]
    take_up: Callable[[], object]
    faults: tuple[type[Exception], ...]


class FollowedFiles:
    """`look()` takes up what changed, and with `is_forced` everything; `run()` looks every 2 s.

    The first look takes up everything: nobody else can know that a file is still what was read before.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._seen: dict[str, Marks | None] = {source.name: None for source in sources}
        self._causes: dict[str, str] = {}
        self._looking = asyncio.Lock()

    @property
    def causes(self) -> tuple[str, ...]:
        """What could not be taken up, as sentences."""
        return tuple(self._causes.values())

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self, *, is_forced: bool = False) -> None:
        """Take up what changed since the last look. Never raises for a bad file."""
        async with self._looking:
            for source in self._sources:
                await self._look_at(source, is_forced=is_forced)

    async def _look_at(self, source: Source, *, is_forced: bool) -> None:
        marks = await asyncio.to_thread(_marks, source.paths)
        if marks == self._seen[source.name] and not is_forced:
            return
        cause = await asyncio.to_thread(_take_up, source)
        self._seen[source.name] = marks if cause is None else None
        if cause is None:
            self._causes.pop(source.name, None)
            log.info("file taken up", extra={"what": source.name})
            return
        sentence = f"{source.name}: the former stays in force, because {cause}"
        if sentence != self._causes.get(source.name):
            self._causes[source.name] = sentence
            log.error("file not taken up", extra={"what": source.name, "cause": cause})


def _take_up(source: Source) -> str | None:
    """Why it could not be taken up, None where it was."""
    try:
        source.take_up()
    except source.faults as error:
        return str(error)
    return None


def _marks(paths: Sequence[Path]) -> Marks:
    """What changes whenever a file is written, replaced or made readable; None for one that is not there."""
    return tuple(_mark(path) for path in paths)


def _mark(path: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)  # noqa: PTH116  (a link to a certificate counts as what it leads to)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
