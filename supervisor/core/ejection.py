"""The breakers' desk: turns what became of runs into signals, and a change of trust into its consequences.

What counts: an engine error, garbage, a lost connection, a stall, a wall that passed without one token.
What never counts: the caller's fault, a cancel, a drain, a wall that a long answer ran into, a re-run that differs (who
knows which of the two workers was wrong), and an engine that says it is busy: that one is left alone for a moment, then
for longer ones. Only where it said so `BUSY_IN_ROW_MAX` times, gave no token in between and has no other run to be busy
with does each further time count: a slot that it never frees is a fault.
Connections that are lost together are one failure. The breaker itself decides when enough is enough.
"""

from supervisor.core import trials
from supervisor.core.agenda import Alarm
from supervisor.core.breaker import Signal, Trust
from supervisor.core.effects import NoteBreaker
from supervisor.core.lifecycle import Phase
from supervisor.core.replicas import Replica
from supervisor.core.state import State, touch
from supervisor.core.tasks import Running

_OF_PROBE = {Signal.SUCCEEDED: Signal.PROBE_SUCCEEDED, Signal.FAILED: Signal.PROBE_FAILED}


def note_success(state: State, running: Running, now_ms: float) -> None:
    """A run was answered to its end."""
    trials.note_end(state, running, now_ms, is_failed=False)
    note_tokens(state, running)
    _judge(state, running, Signal.SUCCEEDED, now_ms, None)


def note_failure(state: State, running: Running, cause: str, now_ms: float) -> None:
    """A run ended by a fault of its worker."""
    trials.note_end(state, running, now_ms, is_failed=True)
    _judge(state, running, Signal.FAILED, now_ms, cause)


def note_void(state: State, running: Running, now_ms: float) -> None:
    """A run ended and says nothing of its worker: if it was the probe, another one is needed."""
    if state.replicas[running.pool_id].breaker.probe == running.run_id:
        _give(state, state.replicas[running.pool_id], Signal.PROBE_VOID, now_ms, None)


def _judge(state: State, running: Running, signal: Signal, now_ms: float, cause: str | None) -> None:
    replica = state.replicas[running.pool_id]
    if replica.incarnation != running.incarnation or replica.phase is not Phase.READY:
        return  # it is replaced in any case
    is_probe = replica.breaker.probe == running.run_id
    _give(state, replica, _OF_PROBE[signal] if is_probe else signal, now_ms, cause)


def note_begun(state: State, replica: Replica, run_id: int, now_ms: float) -> None:
    """A run was given to a replica: the first one after an ejection is its probe."""
    if replica.breaker.trust is Trust.HALF_OPEN:
        _give(state, replica, Signal.BEGAN, now_ms, None, run_id)


def note_busy(state: State, running: Running, now_ms: float) -> None:
    """The engine refused a run because it has no room: back-pressure, and no fault while it does other work."""
    replica = state.replicas[running.pool_id]
    if replica.incarnation != running.incarnation:
        note_void(state, running, now_ms)
        return
    state.agenda.add(replica.breaker.pause(now_ms), Alarm.BREAKER, replica.pool_id)
    if replica.breaker.is_busy_for_ever and len(replica.runs) == 1:
        _judge(state, running, Signal.FAILED, now_ms, "It is busy, and does nothing.")
    else:
        note_void(state, running, now_ms)
    touch(state, replica)


def note_tokens(state: State, running: Running) -> None:
    """A run gave tokens: its engine works, however often it was busy."""
    replica = state.replicas[running.pool_id]
    if replica.incarnation == running.incarnation:
        replica.breaker.note_tokens()


def note_due(state: State, replica: Replica, now_ms: float) -> None:
    """The alarm of a breaker: a pause is over, or the time of an open one."""
    breaker = replica.breaker
    if breaker.is_paused and breaker.paused_until_ms <= now_ms:
        breaker.is_paused = False
        touch(state, replica)
    if breaker.due_ms is not None and breaker.due_ms <= now_ms:
        try_now(state, replica, now_ms)


def try_now(state: State, replica: Replica, now_ms: float) -> None:
    """Admit a probe: its time has come, or an operator wants one."""
    _give(state, replica, Signal.DUE, now_ms, None)


def renew(state: State, replica: Replica, now_ms: float) -> None:
    """A new process of this replica begins."""
    _give(state, replica, Signal.RENEWED, now_ms, None)


def _give(
    state: State, replica: Replica, signal: Signal, now_ms: float, cause: str | None, run_id: int | None = None
) -> None:
    breaker = replica.breaker
    if not breaker.give(signal, now_ms, cause=cause, run_id=run_id):
        return
    if breaker.due_ms is not None:
        state.agenda.add(breaker.due_ms, Alarm.BREAKER, replica.pool_id)
    touch(state, replica)
    retry_in_ms = None if breaker.due_ms is None else breaker.due_ms - now_ms
    state.out.append(NoteBreaker(replica.pool_id, replica.incarnation, breaker.trust, breaker.cause, retry_in_ms))
