"""Revisions, rollouts and histories of pools as operators see them: wire structs, made on request, decided nowhere."""

from supervisor.core.judge import Tally
from supervisor.core.plan import PoolPlan
from supervisor.core.replicas import Replica
from supervisor.core.revisions import RevisionNote, parse_key
from supervisor.core.rollout import Pool, Rollout
from supervisor.core.split import BUCKETS
from supervisor.core.state import State
from supervisor.wire.rollouts import (
    JudgementView,
    ParityView,
    RevisionStep,
    RevisionView,
    RolloutPage,
    RolloutView,
)


def view_rollouts(state: State, pool_id: str, now_ms: float) -> RolloutPage:
    """All that is known of a pool's revisions, the newest first."""
    pool = state.pools[pool_id]
    return RolloutPage(
        pool_id=pool_id,
        revision=revision_of(pool.current),
        model_ref=_plan_of(state, pool.current).model_ref,
        standby=None if pool.standby is None else revision_of(pool.standby),
        rollout=view_rollout(state, pool, now_ms),
        history=[_view_note(note, now_ms) for note in reversed(pool.history)],
    )


def view_rollout(state: State, pool: Pool, now_ms: float) -> RolloutView | None:
    """What is under way; None where nothing is."""
    rollout = pool.rollout
    if rollout is None:
        return None
    worker = state.replicas.get(rollout.key)
    trial = rollout.trial
    return RolloutView(
        kind=rollout.kind,
        state=rollout.phase,
        from_revision=revision_of(pool.current),
        to_revision=revision_of(rollout.key),
        from_model=_plan_of(state, pool.current).model_ref,
        to_model=worker.plan.model_ref if worker is not None else "",
        since_ms=round(now_ms - rollout.since_ms),
        percent=None if rollout.canary is None else 100 * rollout.canary.share_buckets / BUCKETS,
        judged=rollout.canary is not None and rollout.canary.judge is not None,
        worker_state=None if worker is None else worker.phase,
        steps=[] if worker is None else _view_steps(worker),
        canary=None if trial is None else _view_tally(trial.canary, now_ms),
        current=None if trial is None else _view_tally(trial.current, now_ms),
        parity=_view_parity(rollout),
        cause=rollout.cause or (None if worker is None else worker.cause),
    )


def current_replicas(state: State) -> list[Replica]:
    """The worker of each pool that the pool is known by, in the order in which the pools came."""
    return [state.replicas[pool.current] for pool in state.pools.values()]


def revision_of(key: str) -> int:
    """The number in a worker's key."""
    return parse_key(key)[1]


def _plan_of(state: State, key: str) -> PoolPlan:
    return state.replicas[key].plan


def _view_steps(worker: Replica) -> list[RevisionStep]:
    return [
        RevisionStep(
            name=step.name,
            state=step.state,
            took_ms=None if step.took_ms is None else round(step.took_ms),
            detail=step.detail,
        )
        for step in worker.steps
    ]


def _view_tally(tally: Tally, now_ms: float) -> JudgementView:
    counts = tally.sum(now_ms)
    return JudgementView(tasks=counts.tasks, errors=counts.failed, late=counts.late)


def _view_parity(rollout: Rollout) -> ParityView | None:
    if rollout.trial is None or rollout.trial.parity is None:
        return None
    return ParityView(share=round(rollout.trial.parity, 4))


def _view_note(note: RevisionNote, now_ms: float) -> RevisionView:
    return RevisionView(
        revision=note.revision,
        model_ref=note.model_ref,
        kind=note.kind,
        outcome=note.outcome,
        age_ms=max(round(now_ms - note.at_ms), 0),
        cause=note.cause,
    )
