"""GPUs that are lent in a simulated world: taken, seen free or not, given back, lost with their holder."""

from random import Random

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.intent import LeaseNote
from tests.core.builders import GPU0, GPU1
from tests.sim.world import World

ASKED_BY = ("uid:0", "uid:1")
KEPT_MS = (500.0, 30_000.0)
FREED_WITHIN_MS = 3_000.0
STUCK_SHARE = 0.15


class Leases:
    """Draws with its own dice, so that a seed's other misfortunes stay what they were."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._dice = Random(seed ^ 0x1EA5E)
        self._count = 0
        world.hands[ef.VerifyRelease] = self._verify

    def plan(self, within_ms: float, count: int) -> None:
        for _ in range(count):
            self._world.fated(self._dice.uniform(0, within_ms), self._take)

    def _take(self) -> None:
        self._count += 1
        name, dice = f"lease-{self._count}", self._dice
        devices = dice.choice(((GPU0.uuid,), (GPU1.uuid,), (GPU0.uuid, GPU1.uuid), ("GPU-9",)))
        expires_ms = self._world.now + dice.choice((2_000.0, 3_600_000.0))
        note = LeaseNote(
            lease_id=name, devices=devices, owner=dice.choice(ASKED_BY), purpose="train", expires_ms=expires_ms
        )
        self._world.post(ev.LeaseRequested(name, note, dice.choice((0.0, 1_000.0, 20_000.0))))
        self._world.fated(dice.uniform(*KEPT_MS), lambda: self._end(name, "it was given back"))

    def _end(self, name: str, why: str) -> None:
        self._world.post(ev.LeaseEnded(name, why))

    def _verify(self, effect: ef.VerifyRelease) -> None:
        cause = "GPU-0 still holds 900 MiB" if self._dice.random() < STUCK_SHARE else None
        event = ev.ReleaseVerified(effect.lease_id, cause)
        self._world.after(self._dice.uniform(0, FREED_WITHIN_MS), lambda: self._world.post(event))

    def calm(self) -> None:
        """Whatever is still lent is given back, also what a daemon took up from an earlier one."""
        for lease_id in list(self._world.core.state.leases):
            self._end(lease_id, "the storm is over")
