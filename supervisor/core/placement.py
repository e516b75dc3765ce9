"""Which replica of a set takes a task (ORCH-3008, ORCH-3011): pure over the members.

1. It serves: Ready, and the operator wants it to.
2. It has a free slot, no strict task has it to itself, it did not just lose a run, and its breaker admits one.
3. A strict task on an engine that is not batch-invariant takes an empty worker only.
4. The one in whose slot the KV of the task's session lies (ORCH-3009), unless the least loaded one has more than
   `WARM_GAP_SLOTS_MAX` slots fewer taken. A task waits for no KV: where its worker is full, it runs cold elsewhere.
5. The least loaded of these, by the share of its slots that is taken; then by most free VRAM; then by pool id.
"""

from supervisor.core.replicas import Replica, ReplicaSet
from supervisor.core.tasks import Task

WARM_GAP_SLOTS_MAX = 1
SLOT_ALONE = 0
"""The slot of a task that has its worker to itself: the same one each time, so that nothing but the task decides."""


def needs_worker_alone(task: Task, replica: Replica) -> bool:
    """Whether this task may share the worker with no other."""
    return task.is_strict and replica.slots > 1 and not replica.plan.is_batch_invariant


def can_take(task: Task, replica: Replica) -> bool:
    """Whether a serving replica has room for the task now: rules 2 and 3."""
    if replica.exclusive_run is not None or replica.doubts or not replica.breaker.is_taking:  # 2
        return False
    if needs_worker_alone(task, replica):  # 3
        return replica.load == 0
    return replica.load < replica.slots  # 2


def has_slot(task: Task, home: ReplicaSet) -> bool:
    """Whether some member would take this task now."""
    return home.by_load.first(lambda replica: can_take(task, replica)) is not None


def choose(task: Task, home: ReplicaSet, warm: Replica | None) -> Replica | None:
    """The replica that takes the task; None while it has to wait. `warm` is that of its session, serving or not."""
    least = home.by_load.first(lambda replica: can_take(task, replica))  # 1, 5
    if warm is None or least is None or warm is least:
        return least
    is_able = warm.set_id == home.set_id and warm.can_run and can_take(task, warm)
    return warm if is_able and warm.load - least.load <= WARM_GAP_SLOTS_MAX else least  # 4
