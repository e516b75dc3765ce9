"""The oracle's eye on the workers: their steps, devices, starts and slots, from events and effects alone."""

from dataclasses import dataclass, field

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.faults import XID_OFF_THE_BUS
from supervisor.core.plan import PoolPlan
from supervisor.core.restart import STARTS_MAX, STARTS_WINDOW_MS
from tests.core.ledger import demand

STEPS: dict[type[ef.Effect], tuple[str, str]] = {
    ef.AwaitHealth: ("spawning", "loading"),
    ef.InspectEngine: ("loading", "inspecting"),
    ef.RunSelfTest: ("inspecting", "testing"),
}

ASKS = "asks for a recovery"
OF_LINKS_ALONE = (3, 5)
"""Recovery actions that leave a GPU to work that does not span several."""
BEFORE_A_PROCESS = ("nothing", "verifying", "measuring")


@dataclass
class Worker:
    """One pool as the outside sees it. `last` is the last thing that was asked of it or that it became."""

    plan: PoolPlan
    incarnation: int = 0
    last: str = "nothing"
    slots: int = 0
    runs: set[int] = field(default_factory=set)
    freeing: set[int] = field(default_factory=set)
    alone: int | None = None
    starts: list[float] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)
    is_drained: bool = False
    devices: tuple[str, ...] = ()

    def is_at(self, incarnation: int, last: str) -> bool:
        return self.incarnation == incarnation and self.last == last

    def step(self, before: str, after: str) -> None:
        demand(that=self.last == before, sentence=f"{self.plan.pool_id}: {after} follows {self.last}")
        self.last = after


class WorkerWatch:
    """All pools of one daemon. Raises BrokenPromiseError."""

    def __init__(self, plans: tuple[PoolPlan, ...]) -> None:
        self.workers = {plan.pool_id: Worker(plan) for plan in plans}
        self._present: set[str] | None = None
        self._unwell: dict[str, str] = {}
        self._stand_ins: set[str] = set()

    # Events

    def note_event(self, event: ev.Event) -> None:
        match event:
            case ev.DevicesSeen(devices=devices):
                self._note_devices(devices)
            case ev.DeviceFaulted(uuid=uuid, fault=fault) if fault == XID_OFF_THE_BUS:
                self._unwell[uuid] = "fell off the bus"
            case ev.DriverWasReset(uuids=uuids):
                for uuid in uuids:
                    self._unwell.pop(uuid, None)
            case ev.DrainRequested(pool_id=pool_id):
                self._drain(pool_id, is_drained=True)
            case ev.ResumeRequested(pool_id=pool_id):
                self._drain(pool_id, is_drained=False)
            case ev.LeaseRequested() | ev.IntentRestored() | ev.RolloutRequested() | ev.PoolsChanged():
                self._note_wish(event)
            case ev.EngineInspected() | ev.EngineTested() | ev.StepFailed() | ev.EngineStopped() | ev.SlotsSeenIdle():
                self._note_report(self.workers[event.pool_id], event)
            case _:
                pass

    def _note_wish(self, event: ev.LeaseRequested | ev.IntentRestored | ev.RolloutRequested | ev.PoolsChanged) -> None:
        leases = event.intent.leases if isinstance(event, ev.IntentRestored) else ()
        match event:
            case ev.LeaseRequested(note=note):
                leases = (note,)
            case ev.IntentRestored(intent=intent):
                for pool_id in intent.drained:
                    self._drain(pool_id, is_drained=True)
            case ev.RolloutRequested(plan=plan):
                self._learn(plan)
            case ev.PoolsChanged(added=added):
                for plan in added:
                    self._learn(plan)
                    self._drain(plan.pool_id, is_drained=False)  # under its old name it is another pool
        self._stand_ins |= {note.drain_to for note in leases if note.drain_to is not None}

    def _drain(self, pool_id: str, *, is_drained: bool) -> None:
        for worker in self._of(pool_id):
            worker.is_drained = is_drained
            if not is_drained:
                worker.starts.clear()  # an operator may start a worker as often as he likes

    def _learn(self, plan: PoolPlan) -> None:
        is_drained = any(worker.is_drained for worker in self._of(plan.public_id))
        self.workers.setdefault(plan.pool_id, Worker(plan, is_drained=is_drained))

    def _of(self, pool_id: str) -> list[Worker]:
        """All revisions of a pool, by the name of any."""
        name = pool_id.partition("+")[0]
        return [worker for worker in self.workers.values() if worker.plan.public_id == name]

    def _note_devices(self, devices: tuple[ev.DeviceSeen, ...]) -> None:
        """A GPU that fell off is well once it was gone; one that asks for a recovery, once it asks for none."""
        self._present = {device.uuid for device in devices}
        for uuid in self._unwell.keys() - self._present:
            del self._unwell[uuid]
        for device in devices:
            if device.recovery and device.recovery not in OF_LINKS_ALONE:
                self._unwell.setdefault(device.uuid, ASKS)
            elif self._unwell.get(device.uuid) == ASKS:
                del self._unwell[device.uuid]

    def _note_report(
        self,
        worker: Worker,
        event: ev.EngineInspected | ev.EngineTested | ev.StepFailed | ev.EngineStopped | ev.SlotsSeenIdle,
    ) -> None:
        match event:
            case ev.EngineInspected() if worker.is_at(event.incarnation, "inspecting"):
                worker.slots = event.slots
                worker.versions.add(event.engine_version)
            case ev.EngineTested() if worker.is_at(event.incarnation, "testing"):
                worker.last = "ready"
            case ev.StepFailed() if worker.is_at(event.incarnation, "spawning"):
                worker.last = "nothing"
            case ev.EngineStopped() if worker.is_at(event.incarnation, "stopping"):
                worker.last = "nothing"
            case ev.SlotsSeenIdle() if worker.is_at(event.incarnation, "ready"):
                worker.freeing.difference_update(event.run_ids)
            case _:
                pass  # a report of the past

    # Effects

    def note_effect(self, effect: ef.Effect, now_ms: float) -> None:
        match effect:
            case ef.VerifyModel():
                self._verify(self.workers[effect.pool_id], effect.incarnation)
            case ef.MeasureRoom():
                self.workers[effect.pool_id].step("verifying", "measuring")
            case ef.SpawnEngine():
                self._spawn(self.workers[effect.pool_id], effect.devices, now_ms)
            case ef.AwaitHealth() | ef.InspectEngine() | ef.RunSelfTest():
                self.workers[effect.pool_id].step(*STEPS[type(effect)])
            case ef.StopEngine():
                worker = self.workers[effect.pool_id]
                demand(that=worker.last != "stopping", sentence=f"{effect.pool_id} is stopped twice")
                worker.last = "stopping"
                worker.freeing.clear()
            case ef.CompleteHalt():
                alive = [name for name, each in self.workers.items() if each.last not in BEFORE_A_PROCESS]
                demand(that=not alive, sentence=f"engines outlive the halt: {alive}")
            case _:
                pass

    def _verify(self, worker: Worker, incarnation: int) -> None:
        name = worker.plan.pool_id
        demand(that=incarnation > worker.incarnation, sentence=f"{name}: incarnation {incarnation} is not new")
        demand(that=worker.last in BEFORE_A_PROCESS, sentence=f"{name}: its process is {worker.last}")
        demand(that=not worker.runs, sentence=f"{name}: replaced while it runs {worker.runs}")
        worker.incarnation, worker.last = incarnation, "verifying"
        worker.freeing.clear()

    def _spawn(self, worker: Worker, devices: tuple[str, ...], now_ms: float) -> None:
        name, worker.devices = worker.plan.pool_id, devices
        worker.step("measuring", "spawning")
        demand(that=len(devices) == len(worker.plan.devices), sentence=f"{name}: {devices} is not its mask")
        demand(that=set(devices) <= (self._present or set()), sentence=f"{name} is spawned on a missing GPU")
        unwell = [f"{uuid} {self._unwell[uuid]}" for uuid in devices if uuid in self._unwell]
        demand(that=not unwell, sentence=f"{name} is spawned, and {unwell}")
        worker.starts = [at for at in worker.starts if at > now_ms - STARTS_WINDOW_MS] + [now_ms]
        demand(that=len(worker.starts) <= STARTS_MAX, sentence=f"{name}: {len(worker.starts)} starts in five minutes")

    # Slots

    def take_slot(self, effect: ef.StartRun) -> None:
        """A run is dispatched: to a worker that serves, and to a slot that is free."""
        worker, task = self.workers[effect.pool_id], effect.task
        name = f"run {effect.run_id} of {task.job_id} on {effect.pool_id}"
        demand(that=worker.is_at(effect.incarnation, "ready"), sentence=f"{name}: it is {worker.last}")
        demand(that=not worker.is_drained, sentence=f"{name}: it is drained")
        demand(that=len(worker.runs) + len(worker.freeing) < worker.slots, sentence=f"{name}: no slot is free")
        demand(that=worker.alone is None, sentence=f"{name}: a strict task has it to itself")
        if task.is_strict and worker.slots > 1 and not worker.plan.is_batch_invariant:
            demand(that=not worker.runs and not worker.freeing, sentence=f"{name}: a strict task is not alone")
            worker.alone = effect.run_id
        demand(that=self._serves(worker, task.model_ref), sentence=f"{name}: another model")
        demand(that=worker.plan.ctx is None or task.ctx <= worker.plan.ctx, sentence=f"{name}: too small a context")
        worker.runs.add(effect.run_id)

    def _serves(self, worker: Worker, model: str) -> bool:
        """Under its own name, or in place of a pool whose GPU is lent."""
        return model in worker.plan.model_refs or worker.plan.public_id in self._stand_ins

    def is_ready(self, pool_id: str, incarnation: int) -> bool:
        """Whether this process is the one that serves."""
        return self.workers[pool_id].is_at(incarnation, "ready")

    def give_slot_back(self, pool_id: str, run_id: int, *, is_proven_free: bool) -> None:
        """A run is over; where the engine may still work on it, its slot is not free yet."""
        worker = self.workers[pool_id]
        worker.runs.discard(run_id)
        if worker.alone == run_id:
            worker.alone = None
        if not is_proven_free and worker.last == "ready":
            worker.freeing.add(run_id)

    def room(self, model: str) -> int:
        """How many tasks may wait for a model: one queue per pool, and per version that the pool had."""
        pools = [each for each in self.workers.values() if self._serves(each, model)]
        return sum(each.plan.queue_capacity * len(each.versions) for each in pools)
