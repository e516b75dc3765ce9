"""A task's time in the waitlist: how it gets in, how it gets out, and when to wait is hopeless.

The only place that puts tasks into waitlists or takes them out without dispatch. Whether a task may wait at all is
admission's to say, and which one goes next is the waitlist's.
"""

from supervisor.core import endings
from supervisor.core.agenda import Alarm
from supervisor.core.lifecycle import Phase
from supervisor.core.refusals import Refused
from supervisor.core.replicas import Replica, ReplicaSet, Wanted
from supervisor.core.state import State
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
    refused = _refuse(home)
    for task in list(home.waiting):
        leave(state, task)
        endings.finish(state, task, Outcome(error=refused, emitted=task.emitted))


def is_hopeless(replica: Replica, now_ms: float) -> bool:
    """Whether waiting for this worker makes no sense: no device, failed too often, or drained past the deadline."""
    if replica.phase in (Phase.UNPLACED, Phase.BROKEN):
        return True
    deadline_ms = replica.drain_deadline_ms
    return replica.wanted is Wanted.DRAIN and deadline_ms is not None and deadline_ms <= now_ms


def _refuse(home: ReplicaSet) -> Refused:
    phases = {member.phase for member in home.members}
    reason, message = Reason.DRAINING, "The pool was drained."
    if Phase.BROKEN in phases:
        reason, message = Reason.ENGINE, "No worker of this model can serve."
    elif Phase.UNPLACED in phases:
        reason, message = Reason.NO_GPU, "No worker of this model can serve."
    return Refused(
        code=Code.POOL_UNAVAILABLE,
        reason=reason,
        message=message,
        retry_after_ms=RETRY_UNAVAILABLE_MS,
        engine=home.members[0].plan.engine if home.members else None,
    )
