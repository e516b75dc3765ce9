"""How long a worker did not serve, and why: one incident from the first trouble until it is Ready again.

Decides nothing. What an operator stops on purpose and never brings back leaves no incident.
"""

from collections.abc import Container

from msgspec import Struct

from supervisor.core.effects import NoteWorker
from supervisor.core.lifecycle import Phase

_DOWN = frozenset({Phase.STOPPING, Phase.BACKOFF, Phase.BROKEN, Phase.UNPLACED})


class Outage(Struct, frozen=True):
    """What took a worker out of service: the first cause, when (ms), and which incarnation had it."""

    cause: str
    since_ms: float
    incarnation: int


class Outages:
    """The outages that are not over, at most one for each worker that is known."""

    def __init__(self) -> None:
        self._open: dict[str, Outage] = {}

    def note(self, effect: NoteWorker, known: Container[str], now_ms: float) -> Outage | None:
        """Follow a worker; the outage that is over with this step, if one is. The first cause is kept."""
        if effect.phase == Phase.READY:
            return self._open.pop(effect.pool_id, None)
        if effect.phase in _DOWN and effect.cause and effect.pool_id not in self._open:
            self._open = {key: outage for key, outage in self._open.items() if key in known}
            self._open[effect.pool_id] = Outage(effect.cause, now_ms, effect.incarnation)
        return None
