"""Revisions of a pool that come and go: reload, stop-start, canary, rollback (ORCH-3031, ORCH-3033).

1. A new revision starts beside the current one, which serves on. Once it is Ready they switch, in one event: the alias
   leads to the new one, what waits and was never dispatched goes there, what runs ends where it runs.
2. The old one stays loaded for a rollback for a while (`keep_previous_ms`); a worker short of memory ends that at once.
3. Where both do not fit on the devices, the old one drains, stops, and the new one starts in its place. What is
   submitted meanwhile waits. If the new one fails, the old one starts again by itself.
4. A canary takes a share of the alias by session, with a set of its own. It is judged, promoted, or rolled back.
5. One rollout at a time in each pool.

Signals are read off the workers after every event (`settle`); the table says what follows, and the move is made here.
"""

from collections.abc import Callable

from supervisor.core import masks, pools, runs, sessions, waiting, workers
from supervisor.core.agenda import Alarm
from supervisor.core.effects import MeasureParity, NoteRollout
from supervisor.core.judge import Tally, Verdict, judge
from supervisor.core.lifecycle import Ignored, Phase, Signal
from supervisor.core.replicas import Replica
from supervisor.core.revisions import (
    HISTORY_MAX,
    JudgePlan,
    Revision,
    RevisionNote,
    Role,
    RolloutKind,
    RolloutOutcome,
    RolloutPhase,
    parse_key,
)
from supervisor.core.rollout import Pool, Rollout, Trial
from supervisor.core.rollout_table import RolloutMove, RolloutSignal, decide
from supervisor.core.split import Split
from supervisor.core.state import State, touch
from supervisor.core.tasks import Running
from supervisor.wire.codes import Reason

TRIES_MAX = 2
"""Starts of a new revision, before it is given up."""
_GIVEN_UP = (Phase.UNPLACED, Phase.BROKEN, Phase.OFF)
_DEFAULT_TERMS = JudgePlan()


def settle(state: State, now_ms: float) -> None:
    """Take every rollout, every standby and every retiring worker as far as it can come now."""
    for pool_id in sorted(state.rolling):
        _advance(state, state.pools[pool_id], now_ms)
    for key in sorted(state.aside):
        replica = state.replicas.get(key)
        if replica is not None and replica.role in (Role.STANDBY, Role.RETIRING):
            pools.settle_aside(state, replica, now_ms)
    for pool_id in sorted(state.rolling):  # a worker that is gone may be what a rollout waited for
        _advance(state, state.pools[pool_id], now_ms)


def begin(state: State, pool: Pool, rollout: Rollout, now_ms: float) -> None:
    """Enter a rollout whose worker was added; `settle` takes it from there."""
    pool.rollout = rollout
    pool.drain_ms = rollout.drain_ms
    pool.next_revision = max(pool.next_revision, parse_key(rollout.key)[1] + 1)
    state.rolling.add(pool.pool_id)
    state.is_intent_stale = True
    _note(state, pool, RolloutOutcome.STARTED, None, now_ms)


def give(state: State, pool: Pool, signal: RolloutSignal, now_ms: float) -> bool:
    """Hand a signal to a pool's rollout; whether it changed anything."""
    if pool.rollout is None:
        return False
    cell = decide(pool.rollout.phase, signal)
    if isinstance(cell, Ignored):
        return False
    _MOVES[cell](state, pool, pool.rollout, now_ms)
    return True


def _advance(state: State, pool: Pool, now_ms: float) -> None:
    while pool.rollout is not None:
        signal = _observe(state, pool, pool.rollout, now_ms)
        if signal is None or not give(state, pool, signal, now_ms):
            return


# Signals


def _observe(state: State, pool: Pool, rollout: Rollout, now_ms: float) -> RolloutSignal | None:
    match rollout.phase:
        case RolloutPhase.SHARING:
            return _observe_canary(state, rollout, now_ms)
        case RolloutPhase.RETURNING:
            is_down = rollout.key not in state.replicas and state.replicas[pool.current].phase is Phase.RESTING
            return RolloutSignal.BOTH_DOWN if is_down else None
        case RolloutPhase.WAKING:
            is_back = state.replicas[pool.current].phase in (Phase.READY, *_GIVEN_UP)
            return RolloutSignal.AWAKE if is_back else None
        case _:
            return _observe_new(state, pool, rollout) or _observe_old(state, pool, rollout, now_ms)


def _observe_new(state: State, pool: Pool, rollout: Rollout) -> RolloutSignal | None:
    """How far the new worker has come. A shortage that another worker is about to end is no failure of it."""
    new = state.replicas[rollout.key]
    if new.phase is Phase.READY:
        return RolloutSignal.CANARY_READY if rollout.kind is RolloutKind.CANARY else RolloutSignal.READY
    if new.phase in _GIVEN_UP or (new.is_too_big and new.is_short):
        return _fail(rollout, new)
    if new.phase is not Phase.BACKOFF or new.incarnation == rollout.seen:
        return None
    if new.is_short:
        if pools.is_leaving(state, new) or rollout.phase in (RolloutPhase.DRAINING, RolloutPhase.STOPPING):
            return None
        is_starting = rollout.phase is RolloutPhase.STARTING
        if is_starting and is_in_the_way(state, rollout.kind, state.replicas[pool.current], new):
            return RolloutSignal.SHORT
    rollout.seen = new.incarnation
    rollout.failures += 1
    return _fail(rollout, new) if rollout.failures >= TRIES_MAX else None


def _fail(rollout: Rollout, new: Replica) -> RolloutSignal:
    rollout.cause = new.cause
    return RolloutSignal.FAILED


def is_in_the_way(state: State, kind: RolloutKind, old: Replica, new: Replica) -> bool:
    """Whether the current worker holds, or will take, memory that the new one needs; a canary never replaces it so."""
    is_there = old.phase not in (Phase.RESTING, *_GIVEN_UP)
    return kind is not RolloutKind.CANARY and is_there and pools.shares_devices(state, old, new)


def _observe_old(state: State, pool: Pool, rollout: Rollout, now_ms: float) -> RolloutSignal | None:
    old = state.replicas[pool.current]
    if rollout.phase is RolloutPhase.STOPPING:
        return RolloutSignal.OLD_GONE if old.phase is Phase.RESTING else None
    if rollout.phase is not RolloutPhase.DRAINING:
        return None
    if not old.runs:
        return RolloutSignal.OLD_IDLE
    is_due = rollout.due_ms is not None and rollout.due_ms <= now_ms
    is_running = any(isinstance(state.tasks[job_id].phase, Running) for job_id in old.runs.values())
    return RolloutSignal.DUE if is_due and is_running else None


def _observe_canary(state: State, rollout: Rollout, now_ms: float) -> RolloutSignal | None:
    canary, trial = state.replicas[rollout.key], rollout.trial
    if canary.phase in _GIVEN_UP:
        rollout.cause = canary.cause
        return RolloutSignal.LOST
    if not canary.can_run and len(state.sets[canary.set_id].waiting):
        home = state.sets[canary.set_id]
        pools.scatter(state, home, home, now_ms, is_bound=False)
    terms = None if rollout.canary is None else rollout.canary.judge
    if trial is None or terms is None or not trial.is_news:
        return None
    trial.is_news = False
    found = judge(terms, trial.canary.sum(now_ms), trial.current.sum(now_ms), trial.parity)
    if found.verdict is Verdict.KEEP:
        return None
    rollout.cause = found.cause
    if found.verdict is Verdict.ROLL_BACK:
        return RolloutSignal.CONDEMNED
    return RolloutSignal.APPROVED if canary.phase is Phase.READY else None


# Moves


def _enter(state: State, rollout: Rollout, phase: RolloutPhase, now_ms: float) -> None:
    rollout.phase, rollout.since_ms = phase, now_ms
    state.is_intent_stale = True


def _note(state: State, pool: Pool, outcome: RolloutOutcome, cause: str | None, now_ms: float) -> None:
    rollout = pool.rollout
    assert rollout is not None, f"{pool.pool_id} has no rollout"
    plan = state.replicas[rollout.key].plan if rollout.key in state.replicas else None
    revision = parse_key(rollout.key)[1]
    state.out.append(NoteRollout(pool.pool_id, revision, rollout.kind, outcome, cause))
    if outcome is not RolloutOutcome.STARTED:
        ref = "" if plan is None else plan.model_ref
        write(
            pool,
            RevisionNote(
                revision=revision, model_ref=ref, kind=rollout.kind, outcome=outcome, at_ms=now_ms, cause=cause
            ),
        )


def write(pool: Pool, note: RevisionNote) -> None:
    """Add a line to a pool's history; the oldest goes."""
    pool.history = (*pool.history, note)[-HISTORY_MAX:]


def revision_of(replica: Replica) -> Revision:
    """What is needed to build its plan again."""
    plan = replica.plan
    return Revision(number=parse_key(plan.pool_id)[1], model_ref=plan.model_ref, config_digest=plan.config_digest)


def _end(state: State, pool: Pool) -> None:
    pool.rollout = None
    state.rolling.discard(pool.pool_id)
    state.is_intent_stale = True


def _switch(state: State, pool: Pool, rollout: Rollout, now_ms: float) -> None:
    _note(state, pool, RolloutOutcome.SWITCHED, rollout.cause, now_ms)
    switch(state, pool, rollout.key, now_ms, is_back=rollout.kind is RolloutKind.ROLLBACK)
    _end(state, pool)


def switch(state: State, pool: Pool, key: str, now_ms: float, *, is_back: bool) -> None:
    """Let another worker of a pool take over from its current one, in this very step (ORCH-3031).

    The new one joins the set of its kind first, so that an old one of the same kind leaves its tasks to it. `is_back`:
    it is a rollback, and the old one is not kept.
    """
    old, new = state.replicas[pool.current], state.replicas[key]
    if pool.standby not in (None, key):
        pools.retire(state, state.replicas[pool.standby], pool.drain_ms, now_ms)
    drop_split(state, key)
    old.is_promised = False
    canary_home = pools.give_role(state, new, Role.CURRENT)
    pool.previous, pool.is_rolled_back = (None, True) if is_back else (revision_of(old), False)
    pool.current, pool.standby = key, None
    new.retire_by_ms = None
    if is_back or old.phase is not Phase.READY:
        pools.retire(state, old, pool.drain_ms, now_ms)
    else:
        _keep(state, pool, old, now_ms)
    pools.scatter(state, canary_home, state.sets[new.set_id], now_ms, is_bound=True)
    touch(state, new)
    state.is_intent_stale = True


def hand_over_wishes(state: State, old: Replica, new: Replica) -> None:
    """What an operator wants of the pool holds for its new worker."""
    new.wanted, new.drain_deadline_ms = old.wanted, old.drain_deadline_ms
    if new.drain_deadline_ms is not None:
        state.agenda.add(new.drain_deadline_ms, Alarm.DRAIN_DEADLINE, new.pool_id)


def _keep(state: State, pool: Pool, old: Replica, now_ms: float) -> None:
    """The former revision stays loaded, ends what it has and gets nothing new."""
    sessions.evict_all(state, old)
    old.is_making_way = False
    source = pools.give_role(state, old, Role.STANDBY)
    pool.standby = old.pool_id
    old.retire_by_ms = now_ms + state.host.keep_previous_ms
    state.agenda.add(old.retire_by_ms, Alarm.ROLLOUT, old.pool_id)
    if source.members:
        waiting.end_if_hopeless(state, source, now_ms)
    else:
        pools.scatter(state, source, state.sets[old.set_id], now_ms, is_bound=True)


def _make_way(state: State, pool: Pool, rollout: Rollout, now_ms: float) -> None:
    old = state.replicas[pool.current]
    old.is_promised = old.is_serving
    old.is_making_way = True
    sessions.evict_all(state, old)
    rollout.due_ms = now_ms + rollout.drain_ms
    state.agenda.add(rollout.due_ms, Alarm.ROLLOUT, old.pool_id)
    touch(state, old)
    _enter(state, rollout, RolloutPhase.DRAINING, now_ms)


def _reset_runs(state: State, pool: Pool, _rollout: Rollout, _now_ms: float) -> None:
    message = "The pool makes way for another revision, and the task ran longer than its drain."
    runs.reset_all(state, state.replicas[pool.current], Reason.DRAINING, message)


def _stop_old(state: State, pool: Pool, rollout: Rollout, now_ms: float) -> None:
    rollout.due_ms = None
    workers.give(state, state.replicas[pool.current], Signal.REST, now_ms, "it makes way for another revision")
    _enter(state, rollout, RolloutPhase.STOPPING, now_ms)


def _start_alone(state: State, _pool: Pool, rollout: Rollout, now_ms: float) -> None:
    new = state.replicas[rollout.key]
    rollout.failures, rollout.seen = 0, new.incarnation
    workers.give(state, new, Signal.RETRY, now_ms)
    _enter(state, rollout, RolloutPhase.SWAPPING, now_ms)


def _retire_new(state: State, pool: Pool, rollout: Rollout, now_ms: float, drain_ms: float) -> None:
    """Close the account of a new revision that does not serve."""
    condemned = rollout.phase is RolloutPhase.SHARING
    undone = RolloutOutcome.ABORTED if rollout.is_aborted else RolloutOutcome.FAILED
    outcome = RolloutOutcome.ROLLED_BACK if condemned else undone
    _note(state, pool, outcome, rollout.cause, now_ms)
    drop_split(state, rollout.key)
    pools.retire(state, state.replicas[rollout.key], drain_ms, now_ms)


def _give_up(state: State, pool: Pool, rollout: Rollout, now_ms: float) -> None:
    _retire_new(state, pool, rollout, now_ms, 0.0)
    _end(state, pool)


def _call_back(state: State, pool: Pool, rollout: Rollout, now_ms: float) -> None:
    old = state.replicas[pool.current]
    old.is_making_way = old.is_promised = False
    touch(state, old)
    _give_up(state, pool, rollout, now_ms)


def _go_back(state: State, pool: Pool, rollout: Rollout, now_ms: float) -> None:
    _retire_new(state, pool, rollout, now_ms, 0.0)
    _enter(state, rollout, RolloutPhase.RETURNING, now_ms)


def _wake_old(state: State, pool: Pool, rollout: Rollout, now_ms: float) -> None:
    old = state.replicas[pool.current]
    old.is_making_way = False
    workers.give(state, old, Signal.WAKE, now_ms, rollout.cause)
    _enter(state, rollout, RolloutPhase.WAKING, now_ms)
    masks.place_all(state, now_ms)


def _end_return(state: State, pool: Pool, _rollout: Rollout, _now_ms: float) -> None:
    old = state.replicas[pool.current]
    old.is_promised = False
    touch(state, old)
    _end(state, pool)


def _share(state: State, pool: Pool, rollout: Rollout, now_ms: float) -> None:
    assert rollout.canary is not None, f"{pool.pool_id} has a canary without a share"
    terms = rollout.canary.judge or _DEFAULT_TERMS
    rollout.trial = Trial(Tally(terms.window_ms), Tally(terms.window_ms))
    pools.give_role(state, state.replicas[rollout.key], Role.CANARY)
    _enter(state, rollout, RolloutPhase.SHARING, now_ms)
    set_share(state, pool, rollout.canary.share_buckets)
    _note(state, pool, RolloutOutcome.SHARED, None, now_ms)
    if terms.parity_min is not None:
        state.out.append(MeasureParity(pool.pool_id, pool.current, rollout.key))


def _roll_back(state: State, pool: Pool, rollout: Rollout, now_ms: float) -> None:
    _retire_new(state, pool, rollout, now_ms, rollout.drain_ms)
    _end(state, pool)


_MOVES: dict[RolloutMove, Callable[[State, Pool, Rollout, float], None]] = {
    RolloutMove.SWITCH: _switch,
    RolloutMove.SHARE: _share,
    RolloutMove.MAKE_WAY: _make_way,
    RolloutMove.STOP_OLD: _stop_old,
    RolloutMove.RESET_RUNS: _reset_runs,
    RolloutMove.START_ALONE: _start_alone,
    RolloutMove.GIVE_UP: _give_up,
    RolloutMove.CALL_BACK: _call_back,
    RolloutMove.GO_BACK: _go_back,
    RolloutMove.WAKE_OLD: _wake_old,
    RolloutMove.END: _end_return,
    RolloutMove.ROLL_BACK: _roll_back,
}


# Shares


def set_share(state: State, pool: Pool, share_buckets: int) -> None:
    """Let the canary take this share of every name that both revisions answer to."""
    rollout = pool.rollout
    assert rollout is not None, f"{pool.pool_id} has no canary"
    plan = state.replicas[rollout.key].plan
    for ref in plan.model_refs & state.replicas[pool.current].plan.model_refs:
        state.splits[plan.engine, ref] = Split(frozenset({rollout.key}), share_buckets)


def drop_split(state: State, key: str) -> None:
    """A worker takes no share any more."""
    state.splits = {alias: split for alias, split in state.splits.items() if key not in split.canary_pools}
