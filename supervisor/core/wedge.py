"""Whether an engine that answers its health check still generates (ORCH-3016, ORCH-3038). Replaces nothing itself.

While it is busy, the watchdogs of its runs are the proof: `STALLS_MAX` runs in a row that stalled with no token in
between say that it is wedged. While it is idle it is asked for a real answer now and then: a probe. One that fails is
repeated at once, a second one in a row says that it is wedged.

A probe takes a free slot for its few milliseconds, as a run does, and only on a worker with nothing else to do; a task
that finds no other slot waits for its end. It never takes a slot in which the KV of a session lies: such a worker gave
an answer within the life of that session, and is probed once the session is over. A probe is no task: it is in no
count, no metric of tasks and no forecast.
"""

from supervisor.core.agenda import Alarm
from supervisor.core.effects import ProbeIdleEngine
from supervisor.core.events import IdleEngineProbed, RunAborted
from supervisor.core.generating import Generating
from supervisor.core.lifecycle import Phase
from supervisor.core.replicas import Replica
from supervisor.core.state import State, note_load
from supervisor.core.tasks import Aborting
from supervisor.wire.codes import Reason

FAILURES_MAX = 2
STALLS_MAX = 3


def begin(state: State, replica: Replica, now_ms: float) -> None:
    """A worker is Ready: its self-test was the first proof."""
    replica.generating = Generating(proved_ms=now_ms)
    _wake_at(state, replica, now_ms)


def tune(state: State, replica: Replica, now_ms: float) -> None:
    """Its probes are due at other times from now on. The one that is under way goes on as it was begun."""
    if replica.phase is Phase.READY:
        every_ms = replica.plan.probe_every_ms or 0
        _wake_at(state, replica, max(replica.generating.proved_ms, now_ms - every_ms))


def _wake_at(state: State, replica: Replica, from_ms: float) -> None:
    replica.generating.look_ms = None
    if replica.plan.probe_every_ms is not None:
        due_ms = from_ms + replica.plan.probe_every_ms
        replica.generating.look_ms = due_ms
        state.agenda.add(due_ms, Alarm.PROBE, f"{replica.incarnation} {replica.pool_id}")


def note_due(state: State, key: str, now_ms: float) -> None:
    """It may be time for a probe."""
    incarnation, pool_id = key.split(" ", 1)
    replica = state.replicas.get(pool_id)
    if replica is None or replica.incarnation != int(incarnation) or replica.phase is not Phase.READY:
        return
    if replica.generating.look_ms is None or replica.generating.look_ms > now_ms:
        return
    if replica.generating.probe is not None:  # a self-test on demand: a probe has used its alarm up
        _wake_at(state, replica, now_ms)
        return
    every_ms = replica.plan.probe_every_ms or 0
    if replica.generating.proved_ms + every_ms > now_ms:
        _wake_at(state, replica, replica.generating.proved_ms)
    elif replica.load or not replica.slot_table.has_cold:
        _wake_at(state, replica, now_ms)
    else:
        _probe(state, replica)


def _probe(state: State, replica: Replica) -> None:
    run_id = state.next_run
    state.next_run += 1
    slot, _ = replica.slot_table.take(run_id, None, None)
    replica.generating.probe, replica.generating.look_ms = run_id, None
    note_load(state, replica)
    _ask(state, replica, run_id, slot)


def _ask(state: State, replica: Replica, run_id: int, slot: int) -> None:
    pinned = slot if replica.plan.can_pin_slots else None
    state.out.append(
        ProbeIdleEngine(replica.pool_id, replica.incarnation, run_id, pinned, replica.plan.probe_within_ms)
    )


def note_probed(state: State, replica: Replica, event: IdleEngineProbed, now_ms: float) -> str | None:
    """A probe was answered, or not. Gives one sentence where the worker is wedged."""
    generating = replica.generating
    if generating.probe is None or generating.probe != event.run_id:
        return None
    if event.cause is None:
        give_back(state, replica)
        generating.failures = 0
        _prove(replica, now_ms)
        _wake_at(state, replica, now_ms)
        return None
    generating.failures += 1
    if generating.failures >= FAILURES_MAX:
        return f"it answers and does not generate: {event.cause}"
    _ask(state, replica, event.run_id, replica.slot_table.taken()[event.run_id])
    return None


def give_back(state: State, replica: Replica) -> None:
    """The slot of a probe, or of what took its place, is free."""
    run_id = replica.generating.probe
    assert run_id is not None
    replica.generating.probe = None
    replica.slot_table.give_back(run_id, is_kept=False)
    note_load(state, replica)


def _prove(replica: Replica, now_ms: float) -> None:
    replica.generating.proved_ms = now_ms
    replica.generating.silent_stalls = 0


def note_output(state: State, run_id: int, now_ms: float) -> None:
    """A run gave its first token, or its whole answer."""
    found = state.task_of_run(run_id)
    if found is None:
        return
    replica = state.replicas[found[1].pool_id]
    if replica.incarnation == found[1].incarnation:
        _prove(replica, now_ms)


def note_aborted(state: State, event: RunAborted, now_ms: float) -> tuple[Replica, str] | None:
    """A run was aborted; to be told before it is taken from its worker. Gives a worker that is wedged, and why.

    While something else runs on it that may still give tokens, the next end decides.
    """
    found = state.task_of_run(event.run_id)
    if found is None or not isinstance(found[0].phase, Aborting):
        return None
    replica, error = state.replicas[found[1].pool_id], found[0].phase.error
    if replica.incarnation != found[1].incarnation:
        return None
    if event.tokens_out:
        _prove(replica, now_ms)
    reason = None if error is None else error.reason
    if reason is not Reason.STALLED and not (reason is Reason.WALL and not event.tokens_out):
        return None
    replica.generating.silent_stalls += 1
    if replica.generating.silent_stalls < STALLS_MAX or len(replica.runs) > 1:
        return None
    return replica, f"{replica.generating.silent_stalls} tasks in a row stalled and it gave no token in between"
