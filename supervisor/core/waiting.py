"""A task's time in the waitlist: how it gets in, how it gets out, and when to wait is hopeless.

The only place that puts tasks into waitlists or takes them out without dispatch. Whether a task may wait at all is
admission's to say, and which one goes next is the waitlist's.
"""

from supervisor.core import endings
from supervisor.core.agenda import Alarm
from supervisor.core.fitting import find_refuge
from supervisor.core.lifecycle import Phase
from supervisor.core.refusals import Refused
from supervisor.core.replicas import Replica, ReplicaSet, Wanted
from supervisor.core.revisions import Role
from supervisor.core.state import State, move_each
from supervisor.core.tasks import WAITING, Outcome, Task
from supervisor.wire.codes import Code, Reason

RETRY_UNAVAILABLE_MS = 10_000
RETRY_EXPIRED_MS = 1_000


def enter(state: State, task: Task, now_ms: float) -> None:
    """Let a task wait at the end of its class."""
    task.phase = WAITING
    state.quotas.begin_wait(task)
    state.set_of(task).waiting.push(task)
    _arm(state, task, now_ms)


def return_to_front(state: State, task: Task, now_ms: float) -> None:
    """Let a task that lost its worker wait before all others of its class."""
    task.phase = WAITING
    state.quotas.begin_wait(task)
    state.set_of(task).waiting.push_front(task)
    _arm(state, task, now_ms)


def _arm(state: State, task: Task, now_ms: float) -> None:
    state.agenda.add(task.deadline_at_ms, Alarm.TASK_DEADLINE, task.job_id)
    state.dirty.add(task.set_id)
    end_if_hopeless(state, state.set_of(task), now_ms)


def leave(state: State, task: Task) -> None:
    """Take a waiting task out of its queue; the caller decides its end in the same step.

    It may have been the head that held all others back.
    """
    state.set_of(task).waiting.remove(task)
    state.quotas.end_wait(task)
    state.dirty.add(task.set_id)
    state.agenda.note_pointless(state.is_live)


def expire(state: State, task: Task) -> None:
    """A waiting task's deadline has come: it ends now, not when a slot frees."""
    state.set_of(task).waiting.remove(task)
    state.quotas.end_wait(task)
    state.dirty.add(task.set_id)
    message = "The deadline was reached before the task was dispatched."
    endings.fail(state, task, Code.DECODE_TIMEOUT, Reason.DEADLINE, message, RETRY_EXPIRED_MS)


def end_if_hopeless(state: State, home: ReplicaSet, now_ms: float) -> None:
    """No CPU, no hope: where no member can serve any more, what waits is told so at once (ORCH-3018).

    While the daemon stops nothing is hopeless: what waits stays on disk for the next one.
    """
    if state.halt_deadline_ms is not None or not all(is_hopeless(member, now_ms) for member in home.members):
        return
    _seek_refuge(state, home, now_ms)
    refused, reset = _refuse(state, home), _reset(home)
    for task in list(home.waiting):
        leave(state, task)
        endings.finish(state, task, Outcome(error=reset if task.emitted and reset else refused, emitted=task.emitted))


def _seek_refuge(state: State, home: ReplicaSet, now_ms: float) -> None:
    """What can be served by another set of its alias waits there."""

    def is_without_hope(member: Replica) -> bool:
        return is_hopeless(member, now_ms)

    def goal_of(task: Task) -> ReplicaSet:
        return find_refuge(state, task, home, is_without_hope, is_bound=False) or home

    move_each(state, home, goal_of)


def _reset(home: ReplicaSet) -> Refused | None:
    """What a task is told that delivered tokens and whose only kind of worker was replaced (ORCH-3047)."""
    if not home.members or any(member.role is not Role.RETIRING for member in home.members):
        return None
    return Refused(
        code=Code.WORKER_RESET,
        reason=Reason.DRAINING,
        message="Another revision of the pool took over, and cannot go on with this stream.",
        retry_after_ms=RETRY_EXPIRED_MS,
        engine=home.members[0].plan.engine,
        pool_id=home.members[0].plan.public_id,
    )


def is_hopeless(replica: Replica, now_ms: float) -> bool:
    """Whether waiting for this worker makes no sense: no device, failed too often, or drained past the deadline."""
    if replica.phase in (Phase.UNPLACED, Phase.BROKEN):
        return True
    if replica.role is Role.RETIRING and _cannot_return(replica, now_ms):
        return True
    deadline_ms = replica.drain_deadline_ms
    return replica.wanted is Wanted.DRAIN and deadline_ms is not None and deadline_ms <= now_ms


def _cannot_return(replica: Replica, now_ms: float) -> bool:
    """Whether a worker that retires ends nothing any more: its time is over, or it has no process to end it."""
    is_over = replica.retire_by_ms is not None and replica.retire_by_ms <= now_ms
    is_stopped = replica.stopping is not None and replica.stopping.after in (Phase.OFF, Phase.RESTING)
    return is_over or is_stopped or replica.phase in (Phase.RESTING, Phase.OFF)


def _refuse(state: State, home: ReplicaSet) -> Refused:
    phases = {member.phase for member in home.members}
    reason, message = Reason.DRAINING, "The pool was drained."
    if any(member.leased_to is not None for member in home.members):
        reason, message = Reason.LEASED, "The GPU of this model is leased."
    elif Phase.BROKEN in phases:
        reason, message = Reason.ENGINE, "No worker of this model can serve."
    elif Phase.UNPLACED in phases:
        reason = Reason.NO_GPU if state.gpu_cause else Reason.GPU_LOST
        message = "No worker of this model can serve."
    return Refused(
        code=Code.POOL_UNAVAILABLE,
        reason=reason,
        message=message,
        retry_after_ms=RETRY_UNAVAILABLE_MS,
        engine=home.members[0].plan.engine if home.members else None,
    )
