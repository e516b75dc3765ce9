"""Where a task may wait: which sets could serve it, and where it goes when its own cannot any more. Changes nothing."""

from collections.abc import Callable

from supervisor.core.replicas import Replica, ReplicaSet
from supervisor.core.revisions import Role
from supervisor.core.state import State
from supervisor.core.tasks import Task


def fits(home: ReplicaSet, task: Task) -> bool:
    """Whether the members of a set do this workload, with this profile and at least this context."""
    if not home.members or task.workload not in home.members[0].plan.workloads:
        return False
    if task.sampler_profile_version not in (None, home.key.sampler_profile_version):
        return False
    return home.key.ctx is None or task.ctx <= home.key.ctx


def find_refuge(
    state: State, task: Task, home: ReplicaSet, is_hopeless: Callable[[Replica], bool], *, is_bound: bool
) -> ReplicaSet | None:
    """Another set of the task's alias in which it may go on; None where there is none, or it must stay.

    A task that delivered tokens stays with its kind of set: another one would not repeat them. `is_bound`: one that was
    dispatched stays too, for its stream says which worker began it. A canary is the last resort.
    """
    routed = state.routes.get((task.engine, task.model_ref), ())
    others = [other for other in routed if other is not home and fits(other, task)]
    if task.emitted or (is_bound and task.attempt):
        others = [other for other in others if other.kind == task.set_kind]
    others = [other for other in others if not all(map(is_hopeless, other.members))]
    return min(others, key=_rank, default=None)


def _rank(home: ReplicaSet) -> tuple[bool, bool, float, str]:
    is_canary = any(member.role is Role.CANARY for member in home.members)
    slots = sum(member.plan.slots for member in home.members)
    return is_canary, not home.can_serve, home.work_total / max(slots, 1), home.set_id
