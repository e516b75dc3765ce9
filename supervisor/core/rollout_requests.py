"""What operators and the configuration ask of pools at run time: begun, or refused (ORCH-3031, ORCH-3033).

A change is taken whole or not at all. What becomes of it is `rollouts`' to say. Keeps what a restart must not forget.
"""

from msgspec import structs

from supervisor.core import endings, pools, rollouts, sessions, waiting
from supervisor.core.effects import AnswerRefused, AnswerRollout, NoteRollout
from supervisor.core.events import (
    CanaryShared,
    ParityMeasured,
    PoolsChanged,
    RollbackRequested,
    RolloutAborted,
    RolloutPromoted,
    RolloutRequested,
)
from supervisor.core.intent import CanaryIntent, PoolIntent
from supervisor.core.lifecycle import Phase
from supervisor.core.refusals import Refused
from supervisor.core.revisions import RevisionNote, Role, RolloutKind, RolloutOutcome, RolloutPhase, parse_key
from supervisor.core.rollout import Pool, Rollout
from supervisor.core.rollout_table import RolloutSignal
from supervisor.core.split import BUCKETS
from supervisor.core.state import State, reroute
from supervisor.wire.codes import Code, Reason

RETRY_BUSY_MS = 5_000


def request(state: State, event: RolloutRequested, now_ms: float) -> None:
    """Begin a rollout: the pool is there, has no other one, and the key is new."""
    pool = state.pools.get(event.pool_id)
    refused = _unknown(event.pool_id) if pool is None else _refuse(state, pool, event)
    if pool is None or refused is not None:
        state.out.append(AnswerRefused(event.ticket, refused or _unknown(event.pool_id)))
        return
    rollout = Rollout(
        kind=event.kind,
        key=event.plan.pool_id,
        phase=RolloutPhase.STARTING,
        since_ms=now_ms,
        drain_ms=event.drain_ms,
        canary=event.canary,
    )
    new = pools.add(state, event.plan, Role.CANDIDATE, now_ms)
    rollouts.hand_over_wishes(state, state.replicas[pool.current], new)
    rollouts.begin(state, pool, rollout, now_ms)
    state.out.append(AnswerRollout(event.ticket, pool.pool_id, parse_key(rollout.key)[1]))


def _refuse(state: State, pool: Pool, event: RolloutRequested) -> Refused | None:
    if state.halt_deadline_ms is not None:
        return _stopping(pool.pool_id)
    if pool.rollout is not None:
        return _busy(pool.pool_id, f"Pool {pool.pool_id} is in a rollout already ({pool.rollout.kind}).")
    if event.plan.pool_id in state.replicas:
        return _busy(
            pool.pool_id, f"Revision {parse_key(event.plan.pool_id)[1]} of pool {pool.pool_id} is there already."
        )
    if (event.kind is RolloutKind.CANARY) != (event.canary is not None):
        return _invalid(pool.pool_id, "A canary has a share, and nothing else has one.")
    if event.canary is not None and not 0 <= event.canary.share_buckets <= BUCKETS:
        return _invalid(pool.pool_id, f"share: between 0 and {BUCKETS} buckets.")
    return None


def _stopping(pool_id: str | None) -> Refused:
    return Refused(
        code=Code.POOL_UNAVAILABLE,
        reason=Reason.SHUTDOWN,
        message="The daemon is stopping.",
        retry_after_ms=RETRY_BUSY_MS,
        pool_id=pool_id,
    )


def _busy(pool_id: str, message: str) -> Refused:
    return Refused(
        code=Code.ADMISSION_REJECT, reason=Reason.BUSY, message=message, retry_after_ms=RETRY_BUSY_MS, pool_id=pool_id
    )


def _invalid(pool_id: str, message: str) -> Refused:
    return Refused(code=Code.INVALID_PARAMS, reason=Reason.FIELD, message=message, pool_id=pool_id)


def _unknown(pool_id: str) -> Refused:
    return Refused(code=Code.INVALID_PARAMS, reason=Reason.NOT_FOUND, message=f"There is no pool {pool_id}.")


def _nothing(pool_id: str, message: str) -> Refused:
    return Refused(code=Code.INVALID_PARAMS, reason=Reason.NOT_FOUND, message=message, pool_id=pool_id)


def promote(state: State, event: RolloutPromoted, now_ms: float) -> None:
    """Let the canary take over, now; it has to be Ready."""
    pool = state.pools.get(event.pool_id)
    if pool is None:
        state.out.append(AnswerRefused(event.ticket, _unknown(event.pool_id)))
        return
    rollout = pool.rollout
    if rollout is None or rollout.phase is not RolloutPhase.SHARING:
        refused = _nothing(pool.pool_id, f"No canary of pool {pool.pool_id} takes a share.")
        state.out.append(AnswerRefused(event.ticket, refused))
        return
    if state.replicas[rollout.key].phase is not Phase.READY:
        message = f"The canary of pool {pool.pool_id} is not ready."
        refused = Refused(
            code=Code.POOL_UNREADY,
            reason=Reason.LOADING,
            message=message,
            retry_after_ms=RETRY_BUSY_MS,
            pool_id=pool.pool_id,
        )
        state.out.append(AnswerRefused(event.ticket, refused))
        return
    rollouts.give(state, pool, RolloutSignal.PROMOTED, now_ms)
    state.out.append(AnswerRollout(event.ticket, pool.pool_id, parse_key(pool.current)[1]))


def abort(state: State, event: RolloutAborted, now_ms: float) -> None:
    """Undo what was begun. Idempotent while it is being undone."""
    pool = state.pools.get(event.pool_id)
    if pool is None or pool.rollout is None:
        message = f"No rollout of pool {event.pool_id} is under way."
        refused = _unknown(event.pool_id) if pool is None else _nothing(pool.pool_id, message)
        state.out.append(AnswerRefused(event.ticket, refused))
        return
    _abort(state, pool, event.cause, now_ms)
    state.out.append(AnswerRollout(event.ticket, pool.pool_id, parse_key(pool.current)[1]))


def _abort(state: State, pool: Pool, cause: str, now_ms: float) -> None:
    if pool.rollout is not None and pool.rollout.key in state.replicas and not pool.rollout.is_aborted:
        pool.rollout.cause, pool.rollout.is_aborted = cause, True
        rollouts.give(state, pool, RolloutSignal.ABORTED, now_ms)


def roll_back(state: State, event: RollbackRequested, now_ms: float) -> None:
    """One action back to what served before (ORCH-3033): idempotent, and done in this very step where that is loaded.

    1. What is under way is undone: nothing of it served alone yet. A rollback that is under way goes on.
    2. A pool that was rolled back stays where it is.
    3. The revision before the current one takes over, where it is still loaded.
    """
    pool = state.pools.get(event.pool_id)
    if pool is None:
        state.out.append(AnswerRefused(event.ticket, _unknown(event.pool_id)))
        return
    standby = None if pool.standby is None else state.replicas[pool.standby]
    if pool.rollout is not None:  # 1
        if pool.rollout.kind is RolloutKind.ROLLBACK and not pool.rollout.is_aborted:
            state.out.append(AnswerRollout(event.ticket, pool.pool_id, parse_key(pool.rollout.key)[1]))
            return
        _abort(state, pool, "rolled back by an operator", now_ms)
    elif not pool.is_rolled_back:  # 2
        if standby is None or standby.phase is not Phase.READY:
            message = f"No revision of pool {pool.pool_id} before the current one is loaded."
            state.out.append(AnswerRefused(event.ticket, _nothing(pool.pool_id, message)))
            return
        revision = rollouts.revision_of(standby)  # 3
        kind, outcome = RolloutKind.ROLLBACK, RolloutOutcome.SWITCHED
        note = RevisionNote(
            revision=revision.number, model_ref=revision.model_ref, kind=kind, outcome=outcome, at_ms=now_ms
        )
        rollouts.write(pool, note)
        rollouts.switch(state, pool, standby.pool_id, now_ms, is_back=True)
        state.out.append(NoteRollout(pool.pool_id, revision.number, kind, outcome, None))
    state.out.append(AnswerRollout(event.ticket, pool.pool_id, parse_key(pool.current)[1]))


def share(state: State, event: CanaryShared, _now_ms: float) -> None:
    """Give the canary another share; sessions that are on its side stay while it grows."""
    pool = state.pools.get(event.pool_id)
    rollout = None if pool is None else pool.rollout
    if pool is None or rollout is None or rollout.canary is None:
        message = f"Pool {event.pool_id} has no canary."
        refused = _unknown(event.pool_id) if pool is None else _nothing(pool.pool_id, message)
        state.out.append(AnswerRefused(event.ticket, refused))
        return
    if not 0 <= event.share_buckets <= BUCKETS:
        refused = _invalid(pool.pool_id, f"share: between 0 and {BUCKETS} buckets.")
        state.out.append(AnswerRefused(event.ticket, refused))
        return
    rollout.canary = structs.replace(rollout.canary, share_buckets=event.share_buckets)
    if rollout.phase is RolloutPhase.SHARING:
        rollouts.set_share(state, pool, event.share_buckets)
    state.is_intent_stale = True
    state.out.append(AnswerRollout(event.ticket, pool.pool_id, parse_key(rollout.key)[1]))


def note_parity(state: State, event: ParityMeasured, _now_ms: float) -> None:
    """Take the result over, if that canary is still on trial."""
    pool = state.pools.get(event.pool_id)
    rollout = None if pool is None else pool.rollout
    if rollout is None or rollout.trial is None or parse_key(rollout.key)[1] != event.revision:
        return
    rollout.trial.parity = event.matched / event.total if event.total else None
    rollout.trial.is_news = True


def change_pools(state: State, event: PoolsChanged, now_ms: float) -> None:
    """A new configuration: checked whole, then taken whole (ORCH-3031)."""
    if (refused := _refuse_change(state, event)) is not None:
        state.out.append(AnswerRefused(event.ticket, refused))
        return
    if event.host is not None:
        state.host = event.host
        state.quotas.tune(event.host.tenants)
        endings.tune(state, now_ms)
        sessions.tune(state)
    for plan in event.tuned:
        pools.tune(state, plan, now_ms)
    for pool_id in event.removed:
        _remove(state, state.pools[pool_id], event.drain_ms, now_ms)
    for plan in event.added:
        pools.add_pool(state, plan, now_ms)
    reroute(state)
    state.is_intent_stale = True
    state.out.append(AnswerRollout(event.ticket, "", event.generation))


def _refuse_change(state: State, event: PoolsChanged) -> Refused | None:
    if state.halt_deadline_ms is not None:
        return _stopping(None)
    for pool_id in event.removed:
        if pool_id not in state.pools:
            return _unknown(pool_id)
    for plan in event.tuned:
        if plan.pool_id not in state.replicas:
            return _unknown(plan.public_id)
    for plan in event.added:
        is_known = plan.public_id in state.pools and plan.public_id not in event.removed
        if is_known or plan.pool_id in state.replicas:
            return _busy(plan.public_id, f"Pool {plan.public_id} is there already, or still on its way out.")
    return None


def _remove(state: State, pool: Pool, drain_ms: float, now_ms: float) -> None:
    """A pool that the configuration does not have any more: what it has may end, and goes elsewhere where it can."""
    if pool.rollout is not None:
        rollouts.drop_split(state, pool.rollout.key)
        state.rolling.discard(pool.pool_id)
    del state.pools[pool.pool_id]
    for replica in [each for each in state.replicas.values() if each.plan.public_id == pool.pool_id]:
        if replica.role is not Role.RETIRING:
            pools.retire(state, replica, drain_ms, now_ms)
    for home in list(state.sets.values()):
        waiting.end_if_hopeless(state, home, now_ms)


# What a restart must not forget


def intents(state: State) -> dict[str, PoolIntent]:
    """Which revision of each pool serves, and the canary beside it."""
    found = {}
    for pool_id, pool in state.pools.items():
        rollout, canary = pool.rollout, None
        if rollout is not None and rollout.canary is not None and not rollout.is_aborted:
            canary = CanaryIntent(revision=rollouts.revision_of(state.replicas[rollout.key]), plan=rollout.canary)
        found[pool_id] = PoolIntent(
            current=rollouts.revision_of(state.replicas[pool.current]),
            next_revision=pool.next_revision,
            previous=pool.previous,
            is_rolled_back=pool.is_rolled_back,
            history=pool.history,
            canary=canary,
        )
    return found


def restore(state: State, wishes: dict[str, PoolIntent], shift_ms: float, now_ms: float) -> None:
    """Take up what is known of the revisions. Where the configuration won, what served before is the one before it.

    Workers were built by then, and a canary is asked for anew: nothing here starts any.
    """
    for pool_id, wish in wishes.items():
        pool = state.pools.get(pool_id)
        if pool is None:
            continue
        pool.next_revision = max(pool.next_revision, wish.next_revision)
        pool.previous, pool.is_rolled_back = wish.previous, wish.is_rolled_back
        pool.history = tuple(structs.replace(note, at_ms=note.at_ms + shift_ms) for note in wish.history)
        revision = rollouts.revision_of(state.replicas[pool.current])
        if revision.number != wish.current.number:
            state.is_intent_stale = True
            pool.previous, pool.is_rolled_back = wish.current, False
            kind, outcome = RolloutKind.CONFIG, RolloutOutcome.SWITCHED
            note = RevisionNote(
                revision=revision.number, model_ref=revision.model_ref, kind=kind, outcome=outcome, at_ms=now_ms
            )
            rollouts.write(pool, note)
