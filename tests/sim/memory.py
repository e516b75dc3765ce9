"""Memory of the simulated GPUs: what each process really takes, what a look finds free, and who runs out of it.

A model takes about what is estimated, sometimes a little more. In some seeds a stranger leaves room for two models on
each GPU while the storm lasts: who starts beside others must not count on what they were promised. Draws with its own
dice.
"""

from random import Random

from supervisor.core import events as ev
from tests.core.ledger import demand
from tests.sim.world import World

TOTAL_MIB = 81_920
ESTIMATE_MIB = 12_000
USE_MIB = (9_000, 12_200)
SHORT_MIB = 1_000
STRANGER_MIB = 52_000
TIGHT_EVERY = 3

Key = tuple[str, int]


class Memory:
    """`held` is what each living process has, on each of its devices."""

    def __init__(self, world: World, seed: int) -> None:
        self._world, self._seed = world, seed
        self._dice = Random(seed ^ 0x3039)
        self.held: dict[Key, dict[str, int]] = {}
        self._stranger_mib = STRANGER_MIB if seed % TIGHT_EVERY == 0 else 0

    def calm(self) -> None:
        """The stranger leaves."""
        self._stranger_mib = 0

    def look(self, key: Key, devices: tuple[str, ...], recipe: str, *, is_short: bool) -> ev.RoomMeasured:
        """What is free now; a stranger holds most of it where it is short."""
        rooms = tuple(
            ev.DeviceRoom(uuid, TOTAL_MIB, self._seen(uuid, is_short), ESTIMATE_MIB, None, self._on(uuid))
            for uuid in devices
        )
        return ev.RoomMeasured(*key, rooms, 64_000, 1_000, 128_000, recipe=recipe)

    def take(self, key: Key, devices: tuple[str, ...], recipe: str) -> None:
        """A process loads its model. No worker is let start where that does not fit (ORCH-3003)."""
        mib = Random(f"{self._seed} {recipe}").randint(*USE_MIB)
        for uuid in devices:
            sentence = f"{key} takes {mib} MiB of {uuid}, and {self._free(uuid)} are free: {self._on(uuid)}"
            demand(that=mib <= self._free(uuid), sentence=sentence)
        self.held[key] = dict.fromkeys(devices, mib)

    def tell(self) -> ev.MemoryHeld:
        """What the driver says of all devices."""
        uuids = sorted({uuid for held in self.held.values() for uuid in held})
        return ev.MemoryHeld(tuple((uuid, self._on(uuid)) for uuid in uuids))

    def give_back(self, key: Key) -> None:
        self.held.pop(key, None)

    def draw_end(self) -> str:
        """Why a process died at its load: most often for nothing that memory could help."""
        return self._dice.choice(("crash",) * 5 + ("oom_vram", "host_alloc", "oom_host"))

    def _seen(self, uuid: str, is_short: bool) -> int:
        return min(SHORT_MIB, self._free(uuid)) if is_short else self._free(uuid)

    def _free(self, uuid: str) -> int:
        return TOTAL_MIB - self._stranger_mib - sum(holder.mib for holder in self._on(uuid))

    def _on(self, uuid: str) -> tuple[ev.Holder, ...]:
        held = ((key, on[uuid]) for key, on in self.held.items() if uuid in on)
        return tuple(ev.Holder(pid_of(key), mib) for key, mib in held)


def pid_of(key: Key) -> int:
    """No two incarnations share one."""
    return 1_000 + key[1]
