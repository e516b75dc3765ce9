"""How a task ends and what is remembered of it: only here does a task become Ending or Ended, or is forgotten."""

from msgspec import structs

from supervisor.core.agenda import Alarm
from supervisor.core.effects import AnswerCancelled, CommitFinish, DropLogs, Forget
from supervisor.core.refusals import Refused
from supervisor.core.state import State
from supervisor.core.tasks import Ended, Ending, Outcome, Task
from supervisor.wire.codes import Code, FinishReason, Reason


def finish(state: State, task: Task, outcome: Outcome) -> None:
    """Decide the end of a task that is neither waiting nor running any more.

    What was streamed counts as generated, also where a run that began anew was ended before it came so far.
    """
    assert not isinstance(task.phase, Ending | Ended), f"{task.job_id} ends twice"
    if outcome.tokens_out < outcome.emitted:
        outcome = structs.replace(outcome, tokens_out=outcome.emitted)
    task.phase = Ending(outcome)
    state.quotas.release(task)
    state.readerless.pop(task.job_id, None)
    state.writes_pending += 1
    if outcome.finish_reason is FinishReason.CANCELED:
        state.counts.canceled += 1
    elif outcome.is_dropped:
        state.counts.dropped += 1
    else:
        state.counts.finished += 1
    for ticket in state.cancel_tickets.pop(task.job_id, ()):
        state.out.append(AnswerCancelled(ticket, outcome.emitted))
    state.out.append(CommitFinish(task, outcome))


def fail(state: State, task: Task, code: Code, reason: Reason, message: str, retry_after_ms: int | None = None) -> None:
    """End a task that never ran, or whose run is over, with an error."""
    refused = Refused(code=code, reason=reason, message=message, retry_after_ms=retry_after_ms, engine=task.engine)
    finish(state, task, Outcome(error=refused, emitted=task.emitted))


def note_committed(state: State, job_id: str, log_bytes: int, now_ms: float) -> None:
    """The end is on disk and published: the task is over. Of a task that is not known it means nothing."""
    task = state.tasks.get(job_id)
    if task is None:
        return
    assert isinstance(task.phase, Ending), f"{job_id} was not ending"
    state.writes_pending -= 1
    remember(state, task, task.phase.outcome, log_bytes, now_ms)
    bound_logs(state)


def remember(state: State, task: Task, outcome: Outcome, log_bytes: int, at_ms: float) -> None:
    """Keep an ended task: its stream for the retention, its id for longer."""
    task.phase = Ended(outcome, at_ms)
    task.body = b""
    state.ended[task.job_id] = at_ms
    state.logs[task.job_id] = log_bytes
    state.log_bytes += log_bytes
    if state.retention_due_ms is None:
        _arm_retention(state)


def tune(state: State, now_ms: float) -> None:
    """The bounds of the host are other ones: what is kept goes by them from now on."""
    bound_logs(state)
    _arm_retention(state)
    expire(state, now_ms)


def bound_logs(state: State) -> None:
    """Drop the oldest finished streams while all of them together are too large."""
    dropped = []
    while state.log_bytes > state.host.finished_bytes_max and len(state.logs) > 1:
        dropped.append(_drop_oldest_log(state))
    if dropped:
        state.out.append(DropLogs(tuple(dropped)))


def _drop_oldest_log(state: State) -> str:
    job_id, size = state.logs.popitem(last=False)
    state.log_bytes -= size
    return job_id


def expire(state: State, now_ms: float) -> None:
    """The retention alarm: streams older than it go; ids go too once enough younger ones are remembered."""
    if state.retention_due_ms is None or state.retention_due_ms > now_ms:
        return
    kept_ms = state.host.finished_retention_ms
    dropped = []
    while state.logs and state.ended[next(iter(state.logs))] + kept_ms <= now_ms:
        dropped.append(_drop_oldest_log(state))
    if dropped:
        state.out.append(DropLogs(tuple(dropped)))
    forgotten = []
    while len(state.ended) > state.host.finished_ids_min and next(iter(state.ended.values())) + kept_ms <= now_ms:
        forgotten.append(_forget_oldest(state))
    if forgotten:
        ids = tuple((task.tenant, task.task_id) for task in forgotten)
        state.out.append(Forget(tuple(task.job_id for task in forgotten), ids))
    _arm_retention(state)


def _arm_retention(state: State) -> None:
    """One alarm, for the oldest stream or the oldest id that is one too many; none while nothing can grow too old."""
    oldest = [state.ended[next(iter(state.logs))]] if state.logs else []
    if len(state.ended) > state.host.finished_ids_min:
        oldest.append(next(iter(state.ended.values())))
    state.retention_due_ms = min(oldest) + state.host.finished_retention_ms if oldest else None
    if state.retention_due_ms is not None:
        state.agenda.add(state.retention_due_ms, Alarm.RETENTION, "")


def _forget_oldest(state: State) -> Task:
    job_id, _ = state.ended.popitem(last=False)
    task = state.tasks.pop(job_id)
    own = state.by_task[task.tenant]
    if own.get(task.task_id) == job_id:
        del own[task.task_id]
    return task
