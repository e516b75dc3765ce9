"""What became of runs, counted for the trial of a canary: on its side, and on that of the current revision.

Counts what says something of a worker: answers, faults, runs that were lost with their worker, first tokens and how
long they took from their dispatch. Decides nothing: `judge` does.
"""

from supervisor.core.judge import Tally
from supervisor.core.revisions import JudgePlan
from supervisor.core.state import State
from supervisor.core.tasks import Running


def note_end(state: State, running: Running, now_ms: float, *, is_failed: bool) -> None:
    """A run ended, by its answer or by a fault of its worker."""
    found = _side(state, running)
    if found is not None:
        found[0].note_end(now_ms, is_failed=is_failed)


def note_first_token(state: State, run_id: int, now_ms: float) -> None:
    """A run gave its first token."""
    found = state.task_of_run(run_id)
    if found is None or not state.rolling:
        return
    running = found[1]
    side = _side(state, running)
    if side is not None:
        tally, terms = side
        bound_ms = terms.first_token_ms_max
        tally.note_first_token(now_ms, is_late=bound_ms is not None and now_ms - running.started_ms > bound_ms)


def _side(state: State, running: Running) -> tuple[Tally, JudgePlan] | None:
    """The tally that a run counts for, where its pool tries a canary."""
    if not state.rolling or running.pool_id not in state.replicas:
        return None
    pool = state.pools.get(state.replicas[running.pool_id].plan.public_id)
    rollout = None if pool is None else pool.rollout
    if pool is None or rollout is None or rollout.trial is None or rollout.canary is None:
        return None
    if rollout.canary.judge is None or running.pool_id not in (rollout.key, pool.current):
        return None
    rollout.trial.is_news = True
    tally = rollout.trial.canary if running.pool_id == rollout.key else rollout.trial.current
    return tally, rollout.canary.judge
