"""What engines, the disk and the devices answer the core in a chaos run: mostly what was asked, sometimes a fault."""

from random import Random

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.revisions import parse_key
from supervisor.core.state import State
from supervisor.wire.codes import FinishReason
from tests.core.builders import CTX, DIGEST

FAULT_SHARE = 0.04
SHORT_SHARE = 0.15
TOTAL_MIB = 81_920
PLENTY_MIB = 80_000
LITTLE_MIB = 1_000
NEED_MIB = 8_000

Asked = (
    ef.VerifyModel
    | ef.MeasureRoom
    | ef.SpawnEngine
    | ef.AdoptEngine
    | ef.AwaitHealth
    | ef.InspectEngine
    | ef.RunSelfTest
    | ef.StopEngine
    | ef.StartRun
    | ef.ConfirmSlotIdle
    | ef.CommitAccept
    | ef.CommitFinish
    | ef.CountTokens
    | ef.ProbeIdleEngine
    | ef.ProbeEngine
    | ef.RunLiveTest
    | ef.VerifyRelease
    | ef.MeasureParity
    | ef.CompleteQuiesce
)
"""What somebody has to answer; everything else is only told."""


class Answers:
    """Drawn with the dice of the run. `is_calm`: nothing goes wrong any more."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice
        self.is_calm = False

    def to(self, state: State, asked: Asked) -> ev.Event | None:
        """The answer; None where nobody is left to give it."""
        is_bad = not self.is_calm and self._dice.random() < FAULT_SHARE
        match asked:
            case ef.StartRun() | ef.CommitAccept() | ef.CommitFinish() | ef.CountTokens():
                return self._of_task(asked, is_bad)
            case ef.VerifyRelease(lease_id=lease_id):
                return ev.ReleaseVerified(lease_id, "it is busy" if is_bad else None)
            case ef.MeasureParity(pool_id=pool_id, new_key=key):
                return ev.ParityMeasured(pool_id, parse_key(key)[1], 9, 10)
            case ef.CompleteQuiesce():
                return ev.QuiesceEnded()
            case ef.ConfirmSlotIdle() | ef.ProbeIdleEngine() | ef.ProbeEngine() | ef.RunLiveTest():
                return _of_slot(asked, "it is silent" if is_bad else None)
            case _:
                return self._of_step(state, asked, is_bad)

    def _of_task(
        self, asked: ef.StartRun | ef.CommitAccept | ef.CommitFinish | ef.CountTokens, is_bad: bool
    ) -> ev.Event:
        match asked:
            case ef.StartRun(run_id=run_id):
                return self._fail_run(run_id) if is_bad else ev.RunFinished(run_id, FinishReason.STOP, 7, 3, 3, 5.0)
            case ef.CommitAccept(task=task):
                return ev.AcceptsFailed((task.job_id,)) if is_bad else ev.AcceptsCommitted((task.job_id,))
            case ef.CommitFinish(task=task):
                return ev.FinishesCommitted((task.job_id,), (10,))
            case ef.CountTokens(task=task):
                return ev.TokensCounted(task.job_id, None if is_bad else 50)

    def _fail_run(self, run_id: int) -> ev.Event:
        how = self._dice.choice([{}, {"is_worker_lost": True}, {"is_busy": True}])
        return ev.RunFailed(run_id, "engine", "it failed", 0, **how)

    def _of_step(
        self,
        state: State,
        asked: ef.VerifyModel
        | ef.MeasureRoom
        | ef.SpawnEngine
        | ef.AdoptEngine
        | ef.AwaitHealth
        | ef.InspectEngine
        | ef.RunSelfTest
        | ef.StopEngine,
        is_bad: bool,
    ) -> ev.Event | None:
        key, inc = asked.pool_id, asked.incarnation
        match asked:
            case ef.StopEngine():
                return ev.EngineStopped(key, inc)
            case ef.MeasureRoom(devices=devices):
                return self._measure(key, inc, devices)
            case ef.AwaitHealth() if is_bad:
                return ev.EngineExited(key, inc, self._dice.choice(["crash", "oom_host", "oom_vram"]), "it is gone")
            case ef.AwaitHealth():
                return ev.EngineHealthy(key, inc)
            case ef.InspectEngine():
                return self._inspect(state, key, inc)
            case _ if is_bad:
                return ev.StepFailed(key, inc, "it failed")
            case ef.VerifyModel():
                return ev.ModelVerified(key, inc, DIGEST)
            case ef.SpawnEngine() | ef.AdoptEngine():
                return ev.EngineSpawned(key, inc, 100 + inc, 9_000)
            case ef.RunSelfTest():
                return ev.EngineTested(key, inc)

    def _measure(self, key: str, inc: int, devices: tuple[str, ...]) -> ev.Event:
        is_short = not self.is_calm and self._dice.random() < SHORT_SHARE
        free_mib = LITTLE_MIB if is_short else PLENTY_MIB
        rooms = tuple(ev.DeviceRoom(uuid, TOTAL_MIB, free_mib, NEED_MIB) for uuid in devices)
        return ev.RoomMeasured(key, inc, rooms, 64_000, 1_000, recipe=f"r{key}")

    def _inspect(self, state: State, key: str, inc: int) -> ev.Event | None:
        replica = state.replicas.get(key)
        version = self._dice.choice(["b1", "b1", "b2"])
        return None if replica is None else ev.EngineInspected(key, inc, version, replica.plan.slots, 2 * CTX)


def _of_slot(
    asked: ef.ConfirmSlotIdle | ef.ProbeIdleEngine | ef.ProbeEngine | ef.RunLiveTest, fault: str | None
) -> ev.Event:
    key, inc = asked.pool_id, asked.incarnation
    match asked:
        case ef.ConfirmSlotIdle(run_id=run_id):
            return ev.SlotsSeenIdle(key, inc, (run_id,)) if fault is None else ev.SlotStuck(key, inc, run_id)
        case ef.ProbeIdleEngine(run_id=run_id):
            return ev.IdleEngineProbed(key, inc, run_id, fault)
        case ef.ProbeEngine():
            return ev.EngineProbed(key, inc, fault)
        case ef.RunLiveTest(run_id=run_id):
            return ev.SelfTestOver(key, inc, run_id)
