"""Looks now and then whether each serving worker still holds its GPU memory, and tells the core of one that does not.

One look proves little (a driver may answer badly once): the second failed look in a row counts. A look that breaks
proves nothing: it is logged.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from supervisor.core.events import EngineMisplaced, Event
from supervisor.runtime.residency import Residency

LOOK_EVERY_S = 60.0
FAILURES_MAX = 2

Key = tuple[str, int]

log = logging.getLogger(__name__)


class ResidencyWatch:
    """`serving` names the workers, `look` asks about one: None where it is gone."""

    def __init__(
        self,
        serving: Callable[[], Iterable[Key]],
        look: Callable[[str, int], Awaitable[Residency | None]],
        post: Callable[[Event], None],
    ) -> None:
        self._serving = serving
        self._look = look
        self._post = post
        self._failures: dict[Key, int] = {}

    async def run(self, every_s: float = LOOK_EVERY_S) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            await self.look_at_all()

    async def look_at_all(self) -> None:
        """One round."""
        keys = list(self._serving())
        self._failures = {key: count for key, count in self._failures.items() if key in keys}
        for key in keys:
            found = await self._look_at(key)
            if found is None or found.passed:
                self._failures.pop(key, None)
                continue
            self._failures[key] = self._failures.get(key, 0) + 1
            if self._failures[key] >= FAILURES_MAX:
                del self._failures[key]
                self._post(EngineMisplaced(*key, cause=f"residency: {found.detail}"))

    async def _look_at(self, key: Key) -> Residency | None:
        try:
            return await self._look(*key)
        except Exception:
            log.exception("a look at a worker's memory broke", extra={"pool_id": key[0], "incarnation": key[1]})
            return None
