"""The workers' desk: turns reports into signals, asks the table, makes the move (ORCH-3002, ORCH-3003, ORCH-3038).

The only place that changes a worker's phase. Each attempt is an incarnation of its own; reports of another one are
dropped before they reach the table.
"""

from collections.abc import Callable

from supervisor.core import ejection, restart, runs, sessions, waiting
from supervisor.core.agenda import Alarm
from supervisor.core.effects import (
    AwaitHealth,
    InspectEngine,
    NoteWorker,
    RunSelfTest,
    SpawnEngine,
    StopEngine,
    VerifyModel,
)
from supervisor.core.events import (
    DeviceSeen,
    DevicesSeen,
    DevicesUnknown,
    EngineInspected,
    EngineSpawned,
    ModelVerified,
    StepPassed,
)
from supervisor.core.lifecycle import Ignored, Move, Phase, Signal, decide
from supervisor.core.replicas import Replica, Step, StepState, Stopping, Wanted
from supervisor.core.slots import SlotTable
from supervisor.core.state import State, join_set, move_waiting, set_key, touch

INSPECT_WITHIN_MS = 30_000
TEST_WITHIN_MS = 120_000
STEP_MODEL = "model digest"
STEP_PROCESS = "process up"
STEP_HEALTH = "engine health"
STEP_PROPS = "engine properties"


def give(state: State, replica: Replica, signal: Signal, now_ms: float, cause: str | None = None) -> None:
    """Hand a signal to a worker: the table decides, the move is made here."""
    cell = decide(replica.phase, signal)
    if isinstance(cell, Ignored):
        return
    _MOVES[cell](state, replica, now_ms, cause)


def _enter(state: State, replica: Replica, phase: Phase, now_ms: float, *, due_ms: float | None = None) -> None:
    replica.phase = phase
    replica.since_ms = now_ms
    replica.due_ms = due_ms
    if due_ms is not None:
        state.agenda.add(due_ms, Alarm.WORKER_PHASE, replica.pool_id)
    touch(state, replica)
    state.out.append(NoteWorker(replica.pool_id, replica.incarnation, phase, replica.cause))


def _begin_step(replica: Replica, name: str, now_ms: float) -> None:
    replica.steps.append(Step(name, StepState.RUNNING, now_ms))


def _end_step(replica: Replica, now_ms: float, state: StepState, detail: str | None = None) -> None:
    if replica.steps and replica.steps[-1].state is StepState.RUNNING:
        step = replica.steps[-1]
        step.state, step.took_ms, step.detail = state, now_ms - step.began_ms, detail


def _verify(state: State, replica: Replica, now_ms: float, _: str | None) -> None:
    replica.steps = []
    replica.cause = None
    if replica.plan.unplannable is not None:
        replica.cause = replica.plan.unplannable
        _enter(state, replica, Phase.BROKEN, now_ms)
        _end_hopeless(state, replica, now_ms)
        return
    replica.incarnation = state.next_incarnation
    state.next_incarnation += 1
    ejection.renew(state, replica, now_ms)
    _begin_step(replica, STEP_MODEL, now_ms)
    _enter(state, replica, Phase.VERIFYING, now_ms)
    state.out.append(VerifyModel(replica.pool_id, replica.incarnation))


def _spawn(state: State, replica: Replica, now_ms: float, cause: str | None) -> None:
    _end_step(replica, now_ms, StepState.PASSED, cause)
    _begin_step(replica, STEP_PROCESS, now_ms)
    replica.history = restart.note_start(replica.history, now_ms)
    _enter(state, replica, Phase.SPAWNING, now_ms)
    state.out.append(SpawnEngine(replica.pool_id, replica.incarnation, replica.devices))


def _await_health(state: State, replica: Replica, now_ms: float, cause: str | None) -> None:
    _end_step(replica, now_ms, StepState.PASSED, cause)
    _begin_step(replica, STEP_HEALTH, now_ms)
    _enter(state, replica, Phase.LOADING, now_ms, due_ms=now_ms + replica.plan.load_timeout_ms)
    state.out.append(AwaitHealth(replica.pool_id, replica.incarnation))


def _inspect(state: State, replica: Replica, now_ms: float, cause: str | None) -> None:
    _end_step(replica, now_ms, StepState.PASSED, cause)
    _begin_step(replica, STEP_PROPS, now_ms)
    _enter(state, replica, Phase.INSPECTING, now_ms, due_ms=now_ms + INSPECT_WITHIN_MS)
    state.out.append(InspectEngine(replica.pool_id, replica.incarnation))


def _test(state: State, replica: Replica, now_ms: float, cause: str | None) -> None:
    _end_step(replica, now_ms, StepState.PASSED, cause)
    _enter(state, replica, Phase.TESTING, now_ms, due_ms=now_ms + TEST_WITHIN_MS)
    state.out.append(RunSelfTest(replica.pool_id, replica.incarnation))


def _serve(state: State, replica: Replica, now_ms: float, _: str | None) -> None:
    replica.cause = None
    state.agenda.add(now_ms + restart.STABLE_MS, Alarm.WORKER_STABLE, f"{replica.incarnation} {replica.pool_id}")
    _enter(state, replica, Phase.READY, now_ms)


def _fail_step(replica: Replica, now_ms: float, cause: str | None) -> str:
    cause = cause or f"{replica.phase} took longer than its bound"
    _end_step(replica, now_ms, StepState.FAILED, cause)
    return cause


def _back_off(state: State, replica: Replica, now_ms: float, cause: str | None) -> None:
    replica.cause = _fail_step(replica, now_ms, cause)
    replica.history = restart.note_failure(replica.history)
    replica.restarts += 1
    match restart.plan_restart(replica.history, now_ms, replica.pool_id):
        case restart.Again(at_ms=at_ms):
            _enter(state, replica, Phase.BACKOFF, now_ms, due_ms=at_ms)
        case restart.BreakerOpen(half_open_at_ms=at_ms):
            _break(state, replica, now_ms, at_ms)


def _break(state: State, replica: Replica, now_ms: float, half_open_at_ms: float) -> None:
    replica.history = restart.note_open(replica.history)
    replica.cause = f"{replica.cause or 'it failed too often'} (breaker open)"
    _enter(state, replica, Phase.BROKEN, now_ms, due_ms=half_open_at_ms)
    _end_hopeless(state, replica, now_ms)


def _stop(state: State, replica: Replica, now_ms: float, after: Phase, cause: str) -> None:
    runs.abort_all(state, replica, None)
    replica.freeing.clear()
    replica.doubts.clear()
    sessions.lose_all(state, replica)
    replica.stopping = Stopping(after, cause)
    replica.cause = cause
    _enter(state, replica, Phase.STOPPING, now_ms)
    state.out.append(StopEngine(replica.pool_id, replica.incarnation))


def _stop_and_retry(state: State, replica: Replica, now_ms: float, cause: str | None) -> None:
    _stop(state, replica, now_ms, Phase.BACKOFF, _fail_step(replica, now_ms, cause))


def _stop_unplaced(state: State, replica: Replica, now_ms: float, cause: str | None) -> None:
    _stop(state, replica, now_ms, Phase.UNPLACED, cause or "its device is gone")


def _stop_for_good(state: State, replica: Replica, now_ms: float, cause: str | None) -> None:
    _stop(state, replica, now_ms, Phase.OFF, cause or "the daemon is stopping")


def _unplace(state: State, replica: Replica, now_ms: float, cause: str | None) -> None:
    replica.cause = cause
    _enter(state, replica, Phase.UNPLACED, now_ms)
    _end_hopeless(state, replica, now_ms)


def _turn_off(state: State, replica: Replica, now_ms: float, _: str | None) -> None:
    _enter(state, replica, Phase.OFF, now_ms)


def _after_stop(state: State, replica: Replica, now_ms: float, _: str | None) -> None:
    stopping = replica.stopping
    assert stopping is not None, f"{replica.pool_id} stopped without a reason"
    replica.stopping = None
    replica.pid = replica.port = None
    match stopping.after:
        case Phase.OFF:
            _turn_off(state, replica, now_ms, None)
        case Phase.UNPLACED:
            _unplace(state, replica, now_ms, stopping.cause)
        case _:
            _back_off(state, replica, now_ms, stopping.cause)


def _reroute_to_retry(_state: State, replica: Replica, _now_ms: float, _cause: str | None) -> None:
    assert replica.stopping is not None
    if replica.stopping.after is Phase.UNPLACED:
        replica.stopping = Stopping(Phase.BACKOFF, replica.stopping.cause)


def _place_again(state: State, replica: Replica, now_ms: float, cause: str | None) -> None:
    """A device that comes and goes must not start a storm: the breaker counts these starts too (ORCH-3053)."""
    match restart.plan_return(replica.history, now_ms):
        case restart.BreakerOpen(half_open_at_ms=at_ms):
            _break(state, replica, now_ms, at_ms)
        case restart.Again():
            _verify(state, replica, now_ms, cause)


def _reroute(after: Phase) -> Callable[[State, Replica, float, str | None], None]:
    def move(_state: State, replica: Replica, _now_ms: float, cause: str | None) -> None:
        assert replica.stopping is not None
        if replica.stopping.after is not Phase.OFF:
            replica.stopping = Stopping(after, cause or replica.stopping.cause)

    return move


_MOVES: dict[Move, Callable[[State, Replica, float, str | None], None]] = {
    Move.PLACE: _place_again,
    Move.VERIFY: _verify,
    Move.SPAWN: _spawn,
    Move.AWAIT_HEALTH: _await_health,
    Move.INSPECT: _inspect,
    Move.TEST: _test,
    Move.SERVE: _serve,
    Move.BACK_OFF: _back_off,
    Move.STOP_AND_RETRY: _stop_and_retry,
    Move.CLEAN_UP: _stop_and_retry,
    Move.STOP_UNPLACED: _stop_unplaced,
    Move.STOP_FOR_GOOD: _stop_for_good,
    Move.UNPLACE: _unplace,
    Move.AFTER_STOP: _after_stop,
    Move.TURN_OFF: _turn_off,
    Move.REROUTE_TO_OFF: _reroute(Phase.OFF),
    Move.REROUTE_TO_UNPLACED: _reroute(Phase.UNPLACED),
    Move.REROUTE_TO_RETRY: _reroute_to_retry,
}


def _end_hopeless(state: State, replica: Replica, now_ms: float) -> None:
    waiting.end_if_hopeless(state, state.sets[replica.set_id], now_ms)


# Reports -----------------------------------------------------------------------------------------------------------


def note_model_verified(state: State, replica: Replica, event: ModelVerified, now_ms: float) -> None:
    """The file is the one that the configuration names (ORCH-3037)."""
    give(state, replica, Signal.MODEL_VERIFIED, now_ms, event.model_digest)


def note_spawned(state: State, replica: Replica, event: EngineSpawned, now_ms: float) -> None:
    """The process runs."""
    if replica.phase is Phase.SPAWNING:
        replica.pid, replica.port = event.pid, event.port
    give(state, replica, Signal.SPAWNED, now_ms, f"pid {event.pid}")


def note_step_passed(replica: Replica, event: StepPassed, now_ms: float) -> None:
    """One step of the self-test, for the status (ORCH-3049)."""
    if replica.phase is not Phase.TESTING:
        return
    step = Step(event.name, StepState.PASSED, now_ms - event.took_ms, event.took_ms, event.detail)
    replica.steps.append(step)


def note_inspected(state: State, replica: Replica, event: EngineInspected, now_ms: float) -> None:
    """Take over what the engine says of itself; less than was configured is a failure, never a silent shrinking."""
    if replica.phase is not Phase.INSPECTING:
        return
    wrong = _shortfall(replica, event)
    if wrong is not None:
        give(state, replica, Signal.STEP_FAILED, now_ms, wrong)
        return
    replica.slots = event.slots
    replica.slot_table = SlotTable(event.slots)
    replica.ctx_per_slot = event.ctx_per_slot
    replica.engine_version = event.engine_version
    _rejoin(state, replica, event.engine_version, now_ms)
    detail = f"{event.engine_version}, {event.slots} slots of {event.ctx_per_slot} tokens"
    give(state, replica, Signal.INSPECTED, now_ms, detail)


def _shortfall(replica: Replica, event: EngineInspected) -> str | None:
    plan = replica.plan
    if event.slots < plan.slots:
        return f"the engine has {event.slots} slots, {plan.slots} are configured"
    if plan.ctx is not None and event.ctx_per_slot < plan.ctx:
        return f"the engine gives {event.ctx_per_slot} tokens of context per slot, {plan.ctx} are configured"
    return None


def _rejoin(state: State, replica: Replica, engine_version: str, now_ms: float) -> None:
    """Move a replica to the set of its version. Waiting tasks follow where no member is left behind to serve them."""
    key = set_key(replica.plan, engine_version)
    if key == replica.set_key:
        return
    old = state.sets[replica.set_id]
    old.members.remove(replica)
    old.recount()
    replica.set_key = key
    join_set(state, replica)
    is_abandoned = all(waiting.is_hopeless(member, now_ms) for member in old.members)
    is_first_to_know = old.key.engine_version is None and replica.wanted is Wanted.SERVE
    if is_abandoned or is_first_to_know:
        move_waiting(state, old, state.sets[replica.set_id])


def note_devices(state: State, event: DevicesSeen, now_ms: float) -> None:
    """A complete inventory: every worker has its devices, or has not."""
    state.gpu_cause = None if event.devices else "no NVIDIA GPU was found"
    for replica in state.replicas.values():
        if replica.wanted is Wanted.HALT:
            continue
        missing = _place(replica, event.devices)
        signal = Signal.DEVICES_FOUND if missing is None else Signal.DEVICES_MISSING
        give(state, replica, signal, now_ms, missing)
    for home in state.sets.values():
        home.rank()


def _place(replica: Replica, devices: tuple[DeviceSeen, ...]) -> str | None:
    """Resolve the mask to UUIDs once, and follow those from then on; gives what is missing."""
    by_name: dict[int | str, str] = {device.index: device.uuid for device in devices}
    by_name.update({device.uuid: device.uuid for device in devices})
    wanted: tuple[int | str, ...] = replica.devices or replica.plan.devices
    missing = [str(name) for name in wanted if name not in by_name]
    if missing:
        return f"GPU {', '.join(missing)} is not there ({len(devices)} found)"
    replica.devices = tuple(by_name[name] for name in wanted)
    replica.vram_free_mib = min(each.vram_free_mib for each in devices if each.uuid in replica.devices)
    return None


def note_devices_unknown(state: State, event: DevicesUnknown, now_ms: float) -> None:
    """No inventory: workers that have not begun wait for one. One lost answer never touches a healthy worker."""
    state.gpu_cause = event.cause
    for replica in state.replicas.values():
        if replica.phase is Phase.IDLE:
            give(state, replica, Signal.DEVICES_MISSING, now_ms, event.cause)
        elif replica.phase is Phase.UNPLACED:
            replica.cause = event.cause


def note_stable(replica: Replica, incarnation: int) -> None:
    """It has been Ready for long enough: old failures no longer count."""
    if replica.incarnation == incarnation and replica.phase is Phase.READY:
        replica.history = restart.note_stable(replica.history)


def note_due(state: State, replica: Replica, now_ms: float) -> None:
    """The deadline of the worker's phase has come, if it is still the same one."""
    if replica.due_ms is not None and replica.due_ms <= now_ms:
        give(state, replica, Signal.DUE, now_ms)
