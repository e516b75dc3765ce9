"""Which replica of a set takes a task (ORCH-3008, ORCH-3011): pure over the members.

1. It serves: Ready, and the operator wants it to.
2. It has a free slot, and no strict task has it to itself.
3. A strict task on an engine that is not batch-invariant takes an empty worker only (CONTRACT §6).
4. The least loaded of these, by the share of its slots that is taken; then by pool id.
"""

from collections.abc import Iterable

from supervisor.core.replicas import Replica
from supervisor.core.tasks import Task


def needs_worker_alone(task: Task, replica: Replica) -> bool:
    """Whether this task may share the worker with no other."""
    return task.is_strict and replica.slots > 1 and not replica.plan.is_batch_invariant


def can_take(task: Task, replica: Replica) -> bool:
    """Whether a serving replica has room for the task now: rules 2 and 3."""
    if replica.exclusive_run is not None:  # 2
        return False
    if needs_worker_alone(task, replica):  # 3
        return replica.load == 0
    return replica.load < replica.slots  # 2


def choose(task: Task, serving: Iterable[Replica]) -> Replica | None:
    """The replica that takes the task; None while it has to wait. `serving` are ordered by pool id (1)."""
    best: Replica | None = None
    best_load = 0.0
    for replica in serving:
        if not can_take(task, replica):
            continue
        load = replica.load / replica.slots
        if best is None or load < best_load:  # 4
            best, best_load = replica, load
            if not load:
                break  # none is less loaded, and the first by pool id wins
    return best
