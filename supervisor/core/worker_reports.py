"""Reports about a worker on its way to Ready, turned into signals of its lifecycle; the table says what follows."""

from supervisor.core import waiting
from supervisor.core.effects import EndFoundEngine
from supervisor.core.events import (
    EngineInspected,
    EnginesFound,
    EngineSpawned,
    ModelVerified,
    StepPassed,
)
from supervisor.core.lifecycle import Phase, Signal
from supervisor.core.replicas import Replica, Step, StepState, Wanted
from supervisor.core.slots import SlotTable
from supervisor.core.state import State, join_set, key_of_replica, move_waiting
from supervisor.core.workers import disown, give


def note_model_verified(state: State, replica: Replica, event: ModelVerified, now_ms: float) -> None:
    """The file is the one that the configuration names (ORCH-3037)."""
    replica.beside_digest = event.beside_digest
    detail = event.model_digest + (f", beside it {event.beside_digest}" if event.beside_digest else "")
    is_running = replica.found is not None and replica.found.devices == replica.devices
    if not is_running:
        disown(state, replica)
    give(state, replica, Signal.ENGINE_FOUND if is_running else Signal.MODEL_VERIFIED, now_ms, detail)


def note_engines_found(state: State, event: EnginesFound, _: float) -> None:
    """Engines that outlived their daemon: each is adopted once its pool has its devices and its model is verified.

    One of a worker that this daemon does not have (a canary, a candidate, what was kept for a rollback), or has stopped
    for good already, is ended.
    """
    for found in event.engines:
        replica = state.replicas.get(found.pool_id)
        if replica is None or replica.phase is Phase.OFF:
            state.out.append(EndFoundEngine(found.pool_id))
        else:
            replica.found = found


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
    _rejoin(state, replica, now_ms)
    detail = f"{event.engine_version}, {event.slots} slots of {event.ctx_per_slot} tokens"
    give(state, replica, Signal.INSPECTED, now_ms, detail)


def _shortfall(replica: Replica, event: EngineInspected) -> str | None:
    plan = replica.plan
    if event.slots < plan.slots:
        return f"the engine has {event.slots} slots, {plan.slots} are configured"
    if plan.ctx is not None and event.ctx_per_slot < plan.ctx:
        return f"the engine gives {event.ctx_per_slot} tokens of context per slot, {plan.ctx} are configured"
    return None


def _rejoin(state: State, replica: Replica, now_ms: float) -> None:
    """Move a replica to the set of its version. Waiting tasks follow where no member is left behind to serve them."""
    key = key_of_replica(replica)
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
