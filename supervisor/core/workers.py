"""The workers' desk: turns reports into signals, asks the table, makes the move (ORCH-3002, ORCH-3003, ORCH-3038).

The only place that changes a worker's phase. Each attempt is an incarnation of its own; reports of another one are
dropped before they reach the table.
"""

from collections.abc import Callable

from supervisor.core import ejection, restart, runs, sessions, waiting, wedge
from supervisor.core.agenda import Alarm
from supervisor.core.effects import (
    AdoptEngine,
    AwaitHealth,
    EndFoundEngine,
    InspectEngine,
    MeasureRoom,
    NoteWorker,
    RunSelfTest,
    SpawnEngine,
    StopEngine,
    VerifyModel,
)
from supervisor.core.generating import Generating
from supervisor.core.lifecycle import Ignored, Move, Phase, Signal, decide
from supervisor.core.replicas import Replica, Step, StepState, Stopping
from supervisor.core.state import State, touch

MEASURE_WITHIN_MS = 30_000
INSPECT_WITHIN_MS = 30_000
TEST_WITHIN_MS = 120_000
STEP_MODEL = "model digest"
STEP_ROOM = "memory headroom"
STEP_PROCESS = "process up"
STEP_HEALTH = "engine health"
STEP_PROPS = "engine properties"


_WITHOUT_PROCESS = (Phase.IDLE, Phase.UNPLACED, Phase.BACKOFF, Phase.BROKEN, Phase.RESTING, Phase.OFF)


def give(state: State, replica: Replica, signal: Signal, now_ms: float, cause: str | None = None) -> None:
    """Hand a signal to a worker: the table decides, the move is made here."""
    cell = decide(replica.phase, signal)
    if isinstance(cell, Ignored):
        return
    _MOVES[cell](state, replica, now_ms, cause)


def _enter(state: State, replica: Replica, phase: Phase, now_ms: float, *, due_ms: float | None = None) -> None:
    replica.phase = phase
    if phase in _WITHOUT_PROCESS:
        replica.claims, replica.held = (), ()
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
    replica.claims = ()
    replica.is_short = replica.is_too_big = False  # of the attempt before; this one may fail for another reason
    refusal = replica.plan.unplannable or replica.unfit
    if refusal is not None:
        disown(state, replica)
        replica.cause = refusal
        _enter(state, replica, Phase.BROKEN, now_ms)
        _end_hopeless(state, replica, now_ms)
        return
    replica.incarnation = state.next_incarnation
    state.next_incarnation += 1
    ejection.renew(state, replica, now_ms)
    _begin_step(replica, STEP_MODEL, now_ms)
    _enter(state, replica, Phase.VERIFYING, now_ms)
    state.out.append(VerifyModel(replica.pool_id, replica.incarnation))


def _measure(state: State, replica: Replica, now_ms: float, cause: str | None) -> None:
    _end_step(replica, now_ms, StepState.PASSED, cause)
    _begin_step(replica, STEP_ROOM, now_ms)
    _enter(state, replica, Phase.MEASURING, now_ms, due_ms=now_ms + MEASURE_WITHIN_MS)
    state.out.append(MeasureRoom(replica.pool_id, replica.incarnation, replica.devices))


def _await_room(state: State, replica: Replica, now_ms: float, cause: str | None) -> None:
    """No start was made, so none counts against the breaker: it goes on by itself once memory is free."""
    replica.is_short = True
    replica.cause = _fail_step(replica, now_ms, cause)
    replica.history = restart.note_failure(replica.history)
    delay_ms = restart.delay_ms(replica.history.streak, replica.pool_id)
    _enter(state, replica, Phase.BACKOFF, now_ms, due_ms=now_ms + delay_ms)


def _adopt(state: State, replica: Replica, now_ms: float, cause: str | None) -> None:
    """An engine that runs already holds its memory: there is nothing to measure, and nothing was started."""
    _end_step(replica, now_ms, StepState.PASSED, cause)
    _begin_step(replica, STEP_PROCESS, now_ms)
    replica.found = None
    _enter(state, replica, Phase.SPAWNING, now_ms)
    state.out.append(AdoptEngine(replica.pool_id, replica.incarnation))


def disown(state: State, replica: Replica) -> None:
    """Nobody will adopt the engine that was found: it is ended."""
    if replica.found is not None:
        replica.found = None
        state.out.append(EndFoundEngine(replica.pool_id))


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
    wedge.begin(state, replica, now_ms)
    _enter(state, replica, Phase.READY, now_ms)


def _fail_step(replica: Replica, now_ms: float, cause: str | None) -> str:
    cause = cause or f"{replica.phase} took longer than its bound"
    _end_step(replica, now_ms, StepState.FAILED, cause)
    return cause


def _back_off(state: State, replica: Replica, now_ms: float, cause: str | None) -> None:
    disown(state, replica)
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
    replica.generating = Generating()
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


def _stop_to_rest(state: State, replica: Replica, now_ms: float, cause: str | None) -> None:
    _stop(state, replica, now_ms, Phase.RESTING, cause or "it makes way")


def _rest(state: State, replica: Replica, now_ms: float, cause: str | None) -> None:
    disown(state, replica)
    replica.cause = cause or replica.cause
    _enter(state, replica, Phase.RESTING, now_ms)


def _wake(state: State, replica: Replica, now_ms: float, cause: str | None) -> None:
    replica.cause = cause
    _enter(state, replica, Phase.IDLE, now_ms)


def _unplace(state: State, replica: Replica, now_ms: float, cause: str | None) -> None:
    disown(state, replica)
    replica.cause = cause
    _enter(state, replica, Phase.UNPLACED, now_ms)
    _end_hopeless(state, replica, now_ms)


def _turn_off(state: State, replica: Replica, now_ms: float, _: str | None) -> None:
    disown(state, replica)
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
        case Phase.RESTING:
            _rest(state, replica, now_ms, stopping.cause)
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


_REST_WINS = (Phase.RESTING, Phase.UNPLACED)
"""What makes way looks for its device when it is woken."""


def _reroute(after: Phase) -> Callable[[State, Replica, float, str | None], None]:
    def move(_state: State, replica: Replica, _now_ms: float, cause: str | None) -> None:
        assert replica.stopping is not None
        if replica.stopping.after is not Phase.OFF and (replica.stopping.after, after) != _REST_WINS:
            replica.stopping = Stopping(after, cause or replica.stopping.cause)

    return move


_MOVES: dict[Move, Callable[[State, Replica, float, str | None], None]] = {
    Move.PLACE: _place_again,
    Move.VERIFY: _verify,
    Move.MEASURE: _measure,
    Move.AWAIT_ROOM: _await_room,
    Move.ADOPT: _adopt,
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
    Move.STOP_TO_REST: _stop_to_rest,
    Move.REST: _rest,
    Move.WAKE: _wake,
    Move.REROUTE_TO_REST: _reroute(Phase.RESTING),
    Move.REROUTE_TO_OFF: _reroute(Phase.OFF),
    Move.REROUTE_TO_UNPLACED: _reroute(Phase.UNPLACED),
    Move.REROUTE_TO_RETRY: _reroute_to_retry,
}


def _end_hopeless(state: State, replica: Replica, now_ms: float) -> None:
    waiting.end_if_hopeless(state, state.sets[replica.set_id], now_ms)


def note_stable(replica: Replica, incarnation: int) -> None:
    """It has been Ready for long enough: old failures no longer count."""
    if replica.incarnation == incarnation and replica.phase is Phase.READY:
        replica.history = restart.note_stable(replica.history)


def note_due(state: State, replica: Replica, now_ms: float) -> None:
    """The deadline of the worker's phase has come, if it is still the same one."""
    if replica.due_ms is not None and replica.due_ms <= now_ms:
        give(state, replica, Signal.DUE, now_ms)
