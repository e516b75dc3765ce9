"""Which replica of a set takes a task (ORCH-3008, ORCH-3011): pure over the members.

1. It serves: Ready, and the operator wants it to.
2. It has a free slot, no strict task has it to itself, and it did not just lose a run.
3. A strict task on an engine that is not batch-invariant takes an empty worker only.
4. The least loaded of these, by the share of its slots that is taken; then by pool id.
"""

from supervisor.core.load_order import LoadOrder
from supervisor.core.replicas import Replica
from supervisor.core.tasks import Task


def needs_worker_alone(task: Task, replica: Replica) -> bool:
    """Whether this task may share the worker with no other."""
    return task.is_strict and replica.slots > 1 and not replica.plan.is_batch_invariant


def can_take(task: Task, replica: Replica) -> bool:
    """Whether a serving replica has room for the task now: rules 2 and 3."""
    if replica.exclusive_run is not None or replica.doubts:  # 2
        return False
    if needs_worker_alone(task, replica):  # 3
        return replica.load == 0
    return replica.load < replica.slots  # 2


def choose(task: Task, by_load: LoadOrder[Replica]) -> Replica | None:
    """The replica that takes the task; None while it has to wait. `by_load` holds those that serve (1) in order (4)."""
    return by_load.first(lambda replica: can_take(task, replica))
