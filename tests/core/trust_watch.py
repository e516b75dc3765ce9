"""The oracle's eye on ejections: who must be ejected, and what an ejected worker may be given; from outside alone."""

from dataclasses import dataclass

from supervisor.core import effects as ef
from supervisor.core import events as ev
from tests.core.ledger import demand

STREAK_MAX = 5
OPEN_MS_MIN = 30_000


@dataclass
class Standing:
    """What was said of a worker, and what its runs said since. `probes` counts what it was given on probation."""

    incarnation: int = 0
    trust: str = "closed"
    failures: int = 0
    opened_ms: float = 0.0
    probes: int = 0
    is_resumed: bool = False


class TrustWatch:
    """All pools of one daemon. Raises BrokenPromiseError."""

    def __init__(self, pool_ids: tuple[str, ...]) -> None:
        self._standings = {pool_id: Standing() for pool_id in pool_ids}

    def begin(self, effect: ef.VerifyModel) -> None:
        """A new process is a new beginning."""
        self._standings[effect.pool_id] = Standing(effect.incarnation)

    def learn(self, pool_id: str) -> None:
        """Another revision of a pool."""
        self._standings.setdefault(pool_id, Standing())

    def resume(self, pool_id: str) -> None:
        for key, standing in self._standings.items():
            standing.is_resumed |= key.partition("+")[0] == pool_id.partition("+")[0]

    def end_run(self, effect: ef.StartRun, event: ev.RunFinished | ev.RunFailed, *, is_cancelled: bool) -> None:
        """A run of a Ready worker ended by itself."""
        standing = self._standings[effect.pool_id]
        if standing.incarnation != effect.incarnation:
            return
        if isinstance(event, ev.RunFinished):
            standing.failures = 0
            return
        is_certain = not (event.is_client_fault or event.is_busy or event.is_worker_lost or is_cancelled)
        standing.failures += is_certain and event.reason == "engine" and standing.trust == "closed"

    def check(self) -> None:
        """After the effects of an event: nobody who should have been ejected is still trusted."""
        for pool_id, standing in self._standings.items():
            is_late = standing.trust == "closed" and standing.failures >= STREAK_MAX
            demand(that=not is_late, sentence=f"{pool_id}: {standing.failures} failures in a row and not ejected")

    def note_breaker(self, effect: ef.NoteBreaker, now_ms: float) -> None:
        standing, name = self._standings[effect.pool_id], effect.pool_id
        match effect.trust:
            case "open":
                standing.opened_ms, standing.is_resumed, standing.failures = now_ms, False, 0
                is_told = effect.cause is not None and round(effect.retry_in_ms or 0) >= OPEN_MS_MIN
                demand(that=is_told, sentence=f"{name} is ejected without a cause or a time: {effect}")
            case "half-open" if standing.trust == "open":
                is_due = standing.is_resumed or round(now_ms - standing.opened_ms) >= OPEN_MS_MIN
                demand(that=is_due, sentence=f"{name} is tried too early")
            case "closed":
                standing.failures = 0
            case _:
                pass
        standing.trust = effect.trust
        standing.probes = 0 if effect.trust != "probing" else standing.probes

    def take_slot(self, effect: ef.StartRun) -> None:
        standing, name = self._standings[effect.pool_id], f"run {effect.run_id} on {effect.pool_id}"
        demand(that=standing.trust != "open", sentence=f"{name}: it is ejected")
        if standing.trust != "closed":
            standing.probes += 1
            demand(that=standing.probes == 1, sentence=f"{name}: a second probe")
