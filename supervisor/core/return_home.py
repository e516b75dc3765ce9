"""Which set takes up a task that an earlier daemon left (ORCH-3024). Decides nothing of how the task goes on.

1. A set that still fits it: the config may have changed since it was accepted.
2. One of the kind that it was admitted to, so that a re-run gives the same bytes. Where tokens were delivered of a
   strict task, that kind is right even if it can never serve: another one would repeat them wrongly.
3. One that can still serve, if there is one.
4. One on the side of its session, while a canary takes a share of the alias.
5. The one with the least work per slot, then the smallest context, then the name.

Nothing serves yet when tasks are restored: slots are those that the plans promise.
"""

from supervisor.core.fitting import fits
from supervisor.core.replicas import Replica, ReplicaSet
from supervisor.core.split import side_of
from supervisor.core.state import State
from supervisor.core.tasks import Task
from supervisor.core.waiting import is_hopeless


def choose(state: State, task: Task, now_ms: float) -> ReplicaSet | None:
    """The set in which the task waits again; None where no pool serves its model any more."""
    homes = state.routes.get((task.engine, task.model_ref), ())
    fitting = tuple(home for home in homes if fits(home, task))  # 1
    able = tuple(home for home in fitting if any(_can_ever_serve(member, now_ms) for member in home.members))
    owes_bytes = task.is_strict and task.emitted > 0
    alike = tuple(home for home in (fitting if owes_bytes else able) if home.kind == task.set_kind)  # 2
    wanted = alike or able or fitting  # 3
    if not alike:
        wanted = side_of(wanted, state.splits.get((task.engine, task.model_ref)), task.bucket) or wanted  # 4
    return min(wanted, key=_crowding, default=None)  # 5


def _can_ever_serve(member: Replica, now_ms: float) -> bool:
    return member.plan.unplannable is None and not is_hopeless(member, now_ms)


def _crowding(home: ReplicaSet) -> tuple[float, int, str]:
    slots = sum(member.plan.slots for member in home.members)
    return home.work_total / max(slots, 1), home.key.ctx or 0, home.set_id
