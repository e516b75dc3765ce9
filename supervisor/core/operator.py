"""What the operator asks for: drain, resume, halt. Changes what is *wanted*; the rest follows."""

from supervisor.core import ejection, leases, rollout_requests, runs, sessions, waiting, workers
from supervisor.core.agenda import Alarm
from supervisor.core.effects import CompleteHalt, NoteWorker
from supervisor.core.events import (
    DrainRequested,
    HaltRequested,
    IntentRestored,
    ResumeRequested,
    SplitRequested,
)
from supervisor.core.intent import Intent
from supervisor.core.lifecycle import Phase, Signal
from supervisor.core.replicas import Replica, Wanted
from supervisor.core.revisions import Role, parse_key
from supervisor.core.state import State, touch
from supervisor.wire.codes import Reason


def drain(state: State, event: DrainRequested, now_ms: float) -> None:
    """Take a pool out of service: nothing new is dispatched to it, what runs may end until the deadline."""
    for replica in _workers_of(state, event.pool_id):
        _drain(state, replica, event.deadline_ms, now_ms)


def _workers_of(state: State, pool_id: str) -> list[Replica]:
    """All workers of a pool: what an operator wants of it holds for each of its revisions."""
    name = parse_key(pool_id)[0]
    own = (replica for replica in state.replicas.values() if replica.plan.public_id == name)
    return [replica for replica in own if replica.wanted is not Wanted.HALT]


def _drain(state: State, replica: Replica, deadline_ms: float, now_ms: float) -> None:
    replica.wanted = Wanted.DRAIN
    sessions.evict_all(state, replica)
    touch(state, replica)
    state.is_intent_stale = True
    replica.drain_deadline_ms = now_ms + deadline_ms
    state.agenda.add(replica.drain_deadline_ms, Alarm.DRAIN_DEADLINE, replica.pool_id)
    state.out.append(NoteWorker(replica.pool_id, replica.incarnation, replica.phase, "drained by an operator"))


def note_drain_deadline(state: State, replica: Replica, now_ms: float) -> None:
    """What still runs ends as WORKER_RESET; what waits for this pool alone ends as POOL_UNAVAILABLE."""
    if replica.wanted is not Wanted.DRAIN or replica.drain_deadline_ms is None or replica.drain_deadline_ms > now_ms:
        return
    runs.reset_all(state, replica, Reason.DRAINING, "The pool was drained.")
    waiting.end_if_hopeless(state, state.sets[replica.set_id], now_ms)


def resume(state: State, event: ResumeRequested, now_ms: float) -> None:
    """Undo a drain, and try again at once what is backing off, broken or ejected."""
    for replica in _workers_of(state, event.pool_id):
        _resume(state, replica, now_ms)


def _resume(state: State, replica: Replica, now_ms: float) -> None:
    replica.wanted = Wanted.SERVE
    state.is_intent_stale = True
    replica.drain_deadline_ms = None
    workers.give(state, replica, Signal.RETRY, now_ms)
    ejection.try_now(state, replica, now_ms)
    touch(state, replica)


def current_intent(state: State) -> Intent:
    """What operators asked for, as it stands now."""
    drained = {
        replica.plan.public_id: replica.drain_deadline_ms
        for replica in state.replicas.values()
        if replica.drain_deadline_ms is not None and replica.role is Role.CURRENT
        # also while the daemon stops, when all are wanted off
    }
    return Intent(drained=drained, leases=leases.notes(state), pools=rollout_requests.intents(state))


def restore_intent(state: State, event: IntentRestored, now_ms: float) -> None:
    """Take up what operators asked of an earlier daemon: a drained pool stays so."""
    for pool_id, deadline_ms in event.intent.drained.items():
        if pool_id in state.pools:
            drain(state, DrainRequested(pool_id, max(deadline_ms + event.shift_ms - now_ms, 0.0)), now_ms)
    rollout_requests.restore(state, event.intent.pools, event.shift_ms, now_ms)
    leases.restore(state, event.intent.leases, event.shift_ms, now_ms)


def split(state: State, event: SplitRequested, _now_ms: float) -> None:
    """Give a canary its share of an alias. What was admitted before stays where it is."""
    if event.split is None:
        state.splits.pop((event.engine, event.model_ref), None)
    else:
        state.splits[event.engine, event.model_ref] = event.split


def halt(state: State, event: HaltRequested, now_ms: float) -> None:
    """Stop the daemon: no admission, no dispatch; what runs may end until the deadline; what waits stays on disk."""
    state.halt_deadline_ms = now_ms + event.deadline_ms
    state.agenda.add(state.halt_deadline_ms, Alarm.HALT_DEADLINE, "")
    for replica in state.replicas.values():
        replica.wanted = Wanted.HALT
        touch(state, replica)


def note_halt_deadline(state: State, now_ms: float) -> None:
    """What still runs ends as WORKER_RESET."""
    if state.halt_deadline_ms is None or state.halt_deadline_ms > now_ms:
        return
    for replica in state.replicas.values():
        runs.reset_all(state, replica, Reason.SHUTDOWN, "The daemon was stopped.")


def settle_halt(state: State, now_ms: float) -> None:
    """While halting: turn off every worker that runs nothing; complete once all are off and all ends are on disk."""
    if state.halt_deadline_ms is None or state.is_halt_complete:
        return
    for replica in state.replicas.values():
        if not replica.runs and replica.phase is not Phase.OFF:
            workers.give(state, replica, Signal.HALT, now_ms)
    is_off = all(replica.phase is Phase.OFF for replica in state.replicas.values())
    if is_off and not state.writes_pending:
        state.is_halt_complete = True
        state.out.append(CompleteHalt())
