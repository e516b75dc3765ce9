"""What befalls the whole host: lost GPUs, a failing disk, operators, pauses, kills, restarts; and then the calm."""

from collections.abc import Callable

from msgspec import structs

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.faults import Fault, GpuAlarm
from supervisor.core.replicas import Wanted
from tests.core.builders import GPU0, GPU1
from tests.sim.crowd import Crowd
from tests.sim.disk import Disk
from tests.sim.fleet import Fleet
from tests.sim.leases import Leases
from tests.sim.rollouts import Rollouts
from tests.sim.streams import Streams
from tests.sim.world import World

GPUS = {GPU0.uuid: GPU0, GPU1.uuid: GPU1}
FAULTS: tuple[Fault, ...] = (13, 31, 43, 45, 48, 63, 74, 79, 94, 119, 999, GpuAlarm.ECC_SINGLE_BIT, GpuAlarm.POISON)


class Weather:
    """Draws a list of misfortunes, and ends them all at the end."""

    def __init__(
        self,
        world: World,
        disk: Disk,
        streams: Streams,
        fleet: Fleet,
        crowd: Crowd,
        rollouts: Rollouts,
        leases: Leases,
    ) -> None:
        self._world, self._disk, self._streams, self._fleet, self._crowd = world, disk, streams, fleet, crowd
        self._rollouts, self._leases = rollouts, leases
        self._gpus = dict(GPUS)
        self._is_calm = False
        world.hands[ef.CompleteHalt] = self._halted

    def plan(self, within_ms: float, count: int) -> None:
        dice = self._world.dice
        misfortunes: dict[Callable[[], None], int] = {
            self._lose_gpu: 3,
            self._lose_inventory: 1,
            self._fault_gpu: 4,
            self._ask_recovery: 2,
            self._swap_gpus: 1,
            self._reset_driver: 1,
            self._fail_disk: 3,
            self._drain: 3,
            self._resume: 2,
            self._pause: 2,
            self._kill: 3,
            self._halt: 1,
            self._upgrade: 3,
            self._crash_engine: 4,
        }
        for act in dice.choices(list(misfortunes), list(misfortunes.values()), k=count):
            self._world.fated(dice.uniform(0, within_ms), act)

    # The daemon

    def begin_daemon(self) -> None:
        self._rollouts.choose_plans()
        self._world.start_daemon()
        self._world.post(self._disk.recover(self._streams))
        self._rollouts.restore()
        if self._is_calm:
            self._undo_wishes()
        if not self._is_calm and self._world.dice.random() < 0.15:
            self._world.post(ev.DevicesUnknown("the driver does not answer"))
            self._world.after(self._world.dice.uniform(100, 8_000), self._show_gpus)
        else:
            self._world.after(self._world.dice.uniform(1, 50), self._show_gpus)

    def _end_daemon(self, how: str) -> None:
        self._world.end_daemon(how)
        self._disk.crash()
        self._streams.crash(is_power_lost=self._world.dice.random() < 0.2)
        self._fleet.crash()
        self._crowd.crash()
        self._world.fated(self._world.dice.uniform(50, 3_000), self._begin_if_down)

    def _begin_if_down(self) -> None:
        if not self._world.is_up:
            self.begin_daemon()

    def _kill(self) -> None:
        if self._world.is_up:
            self._end_daemon("is killed")

    def _halt(self) -> None:
        """A SIGTERM; sometimes another one follows."""
        dice = self._world.dice
        self._world.post(ev.HaltRequested(dice.choice((0, 2_000, 20_000))))
        if dice.random() < 0.3:
            self._world.after(dice.uniform(10, 5_000), lambda: self._world.post(ev.HaltRequested(0)))

    def _halted(self, _: ef.CompleteHalt) -> None:
        self._end_daemon("stops")

    # Devices

    def _show_gpus(self) -> None:
        self._world.post(ev.DevicesSeen(tuple(self._gpus.values())))

    def _lose_gpu(self) -> None:
        uuid = self._world.dice.choice(sorted(GPUS))
        if self._gpus.pop(uuid, None) is not None:
            self._show_gpus()
            self._world.fated(self._world.dice.uniform(5, 15_000), lambda: self._return_gpu(uuid))

    def _return_gpu(self, uuid: str) -> None:
        if uuid not in self._gpus:
            self._gpus = {each: GPUS[each] for each in sorted({*self._gpus, uuid})}
            self._show_gpus()

    def _fault_gpu(self) -> None:
        """An XID, sometimes with the pid of a worker, sometimes told twice."""
        dice = self._world.dice
        pid = dice.choice((None, None, 1_000 + dice.randrange(1, 40)))
        event = ev.DeviceFaulted(dice.choice(sorted(GPUS)), dice.choice(FAULTS), "nvml", pid)
        self._world.post(event)
        if dice.random() < 0.3:
            self._world.after(dice.uniform(0, 1_500), lambda: self._world.post(event))
        for delay_ms in (3_000, 9_000, 40_000, 90_000, 300_000, 700_000):
            self._world.fated(delay_ms, self._show_gpus)

    def _ask_recovery(self) -> None:
        """The driver asks for something; later it was done."""
        uuid = self._world.dice.choice(sorted(GPUS))
        if uuid in self._gpus:
            self._gpus[uuid] = structs.replace(self._gpus[uuid], recovery=self._world.dice.choice((1, 2, 3, 4)))
            self._show_gpus()
            self._world.fated(self._world.dice.uniform(5, 15_000), lambda: self._recover(uuid))

    def _recover(self, uuid: str) -> None:
        if uuid in self._gpus:
            self._gpus[uuid] = structs.replace(self._gpus[uuid], recovery=0)
            self._show_gpus()

    def _swap_gpus(self) -> None:
        """Another order after a new enumeration: the same GPUs under other indices."""
        count = len(GPUS)
        self._gpus = {uuid: structs.replace(gpu, index=count - 1 - gpu.index) for uuid, gpu in self._gpus.items()}
        self._show_gpus()

    def _reset_driver(self) -> None:
        self._world.post(ev.DriverWasReset(tuple(self._gpus), "the driver was loaded anew"))
        self._show_gpus()

    def _lose_inventory(self) -> None:
        self._world.post(ev.DevicesUnknown("the driver does not answer"))

    # Disk, operators, engines, time

    def _fail_disk(self) -> None:
        self._disk.is_failing = True
        self._world.fated(self._world.dice.uniform(100, 8_000), self._mend_disk)

    def _mend_disk(self) -> None:
        self._disk.is_failing = False

    def _pool(self) -> str:
        return self._world.dice.choice(self._world.plans).pool_id

    def _drain(self) -> None:
        self._world.post(ev.DrainRequested(self._pool(), self._world.dice.choice((0, 1_000, 10_000, 60_000))))

    def _resume(self) -> None:
        self._world.post(ev.ResumeRequested(self._pool()))

    def _upgrade(self) -> None:
        """The engine's binary is another one from the next start on."""
        pool_id = self._pool()
        self._fleet.versions[pool_id] = self._world.dice.choice(("b100", "b101"))
        self._crash_engine()

    def _crash_engine(self) -> None:
        if self._fleet.workers:
            self._fleet.die(self._world.dice.choice(sorted(self._fleet.workers)))

    def _pause(self) -> None:
        self._world.jump(self._world.dice.choice((800.0, 7_000.0, 70_000.0)))

    # The calm

    def calm(self) -> None:
        """No new misfortune; what is broken is mended, and operators put everything back into service."""
        self._is_calm = True
        self._fleet.calm()
        self._mend_disk()
        for uuid in sorted(GPUS):
            self._gpus.pop(uuid, None)
        self._show_gpus()
        for uuid in sorted(GPUS):
            self._return_gpu(uuid)
        self._begin_if_down()
        self._undo_wishes()

    def _undo_wishes(self) -> None:
        """Nothing is under way, lent or drained any more; what an ending daemon was not told, the next one is."""
        self._rollouts.calm()
        self._leases.calm()
        for replica in list(self._world.core.state.replicas.values()):
            if replica.wanted is Wanted.DRAIN:
                self._world.post(ev.ResumeRequested(replica.pool_id))
