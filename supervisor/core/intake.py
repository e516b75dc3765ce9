"""From the submitted task to the waitlist: admission, the durable record, the answer, the cancel."""

from supervisor.core import endings, return_home, waiting
from supervisor.core.admission import Admitted, MustCount, admit
from supervisor.core.effects import (
    AbortRun,
    AnswerAccepted,
    AnswerCancelled,
    AnswerRefused,
    CommitAccept,
    CountTokens,
)
from supervisor.core.events import AcceptsCommitted, AcceptsFailed, CancelRequested, TasksRestored, TokensCounted
from supervisor.core.full_queue import RETRY_FULL_MS
from supervisor.core.quotas import memory_of
from supervisor.core.refusals import Refused
from supervisor.core.state import State
from supervisor.core.tasks import (
    Aborting,
    Accepting,
    Ended,
    Ending,
    Outcome,
    Running,
    Task,
    Waiting,
)
from supervisor.wire.codes import Code, FinishReason, FullPolicy, Reason


def submit(state: State, task: Task, now_ms: float, prompt_tokens: int | None = None) -> None:
    """Admit a task, refuse it, or find that it is known already (idempotency)."""
    known = state.find_task(task.tenant, task.task_id)
    if known is not None:
        _answer_known(state, task, known)
        return
    match admit(state, task, now_ms, prompt_tokens):
        case Refused() as refused:
            state.out.append(AnswerRefused(task.job_id, refused))
        case MustCount(replica=replica):
            state.rates.charge(task, state.sets[replica.set_id], now_ms)
            state.counting[task.job_id] = task
            state.out.append(CountTokens(replica.pool_id, task))
        case Admitted() as admitted:
            if prompt_tokens is None:  # else the count was paid for
                state.rates.charge(task, admitted.home, now_ms)
            _accept(state, task, admitted)


def _answer_known(state: State, task: Task, known: Task) -> None:
    if known.digest != task.digest:
        message = "task_id: it was used before with another body."
        refused = Refused(code=Code.INVALID_PARAMS, reason=Reason.CONFLICT, message=message, engine=task.engine)
        state.out.append(AnswerRefused(task.job_id, refused))
    elif isinstance(known.phase, Accepting):
        state.accept_tickets[known.job_id].append(task.job_id)
    else:
        _answer_accepted(state, task.job_id, known)


def _answer_accepted(state: State, ticket: str, task: Task) -> None:
    state.out.append(AnswerAccepted(ticket, task.job_id, task.task_id, task.queue_position, task.predicted_start_ms))


def _accept(state: State, task: Task, admitted: Admitted) -> None:
    if admitted.victim is not None and admitted.policy is not None:
        _drop_victim(state, admitted.victim, admitted.policy)
    home = admitted.home
    task.phase = Accepting()
    task.set_id = home.set_id
    task.set_kind = home.kind
    task.queue_position = admitted.queue_position
    task.predicted_start_ms = admitted.predicted_start_ms
    task.bucket = 0
    home.promises.fetch((task.tenant, task.task_id))
    home.reserve(task)
    state.quotas.hold(task)
    state.quotas.begin_wait(task)
    _index(state, task)
    state.accept_tickets[task.job_id] = [task.job_id]
    state.writes_pending += 1
    state.out.append(CommitAccept(task))


def _index(state: State, task: Task) -> None:
    state.tasks[task.job_id] = task
    state.by_task.setdefault(task.tenant, {})[task.task_id] = task.job_id


def _drop_victim(state: State, victim: Task, policy: FullPolicy) -> None:
    waiting.leave(state, victim)
    code = Code.QUEUE_FULL_DROP_LRU if policy is FullPolicy.DROP_LRU else Code.ADMISSION_REJECT
    refused = Refused(
        code=code,
        reason=Reason.QUEUE_FULL,
        message="It was dropped from the full queue.",
        retry_after_ms=RETRY_FULL_MS,
        policy=policy,
        engine=victim.engine,
    )
    endings.finish(state, victim, Outcome(error=refused, emitted=victim.emitted, is_dropped=True))


def note_tokens_counted(state: State, event: TokensCounted, now_ms: float) -> None:
    """Go on with a submit once the engine has tokenized its prompt."""
    task = state.counting.pop(event.job_id, None)
    if task is None:
        return
    if event.tokens is not None:
        submit(state, task, now_ms, event.tokens)
        return
    message = "The engine could not tokenize the prompt in time."
    refused = Refused(
        code=Code.POOL_UNREADY, reason=Reason.TIMEOUT, message=message, retry_after_ms=2_000, engine=task.engine
    )
    state.out.append(AnswerRefused(task.job_id, refused))


def _release_reservation(state: State, task: Task) -> None:
    state.set_of(task).release(task)
    state.quotas.end_wait(task)
    state.writes_pending -= 1


def _known(state: State, job_ids: tuple[str, ...]) -> list[Task]:
    """The tasks of a report; one that is not known is none of this daemon's."""
    return [state.tasks[job_id] for job_id in job_ids if job_id in state.tasks]


def note_accepts_committed(state: State, event: AcceptsCommitted, now_ms: float) -> None:
    """On disk: the tasks are accepted and wait, in the order in which they were written."""
    for task in _known(state, event.job_ids):
        job_id = task.job_id
        assert isinstance(task.phase, Accepting), f"{job_id} was not accepting"
        _release_reservation(state, task)
        state.counts.enqueued += 1
        for ticket in state.accept_tickets.pop(job_id):
            _answer_accepted(state, ticket, task)
        if task.phase.is_cancelled:
            endings.finish(state, task, Outcome(finish_reason=FinishReason.CANCELED))
        else:
            waiting.enter(state, task, now_ms)


def note_accepts_failed(state: State, event: AcceptsFailed) -> None:
    """Not on disk: the callers are refused, as if the tasks had never been."""
    for task in _known(state, event.job_ids):
        job_id = task.job_id
        del state.tasks[job_id]
        del state.by_task[task.tenant][task.task_id]
        _release_reservation(state, task)
        state.quotas.release(task)
        message = "The task could not be stored."
        refused = Refused(code=Code.POOL_UNAVAILABLE, reason=Reason.DISK, message=message, retry_after_ms=5_000)
        for ticket in state.accept_tickets.pop(job_id):
            state.out.append(AnswerRefused(ticket, refused))
        for ticket in state.cancel_tickets.pop(job_id, ()):
            state.out.append(AnswerCancelled(ticket, 0))


def cancel(state: State, event: CancelRequested) -> None:
    """End a task for its caller: idempotent, in every phase, also where it was forgotten (ORCH-3017, ORCH-3026)."""
    task = state.tasks.get(event.job_id)
    if task is None:
        state.out.append(AnswerCancelled(event.ticket, 0))
        return
    match task.phase:
        case Ending(outcome=outcome) | Ended(outcome=outcome):
            state.out.append(AnswerCancelled(event.ticket, outcome.emitted))
            return
        case Accepting():
            task.phase = Accepting(is_cancelled=True)
        case Waiting():
            state.cancel_tickets.setdefault(task.job_id, []).append(event.ticket)
            waiting.leave(state, task)
            endings.finish(state, task, Outcome(finish_reason=FinishReason.CANCELED, emitted=task.emitted))
            return
        case Running() as running:
            task.phase = Aborting(running, FinishReason.CANCELED, None)
            state.out.append(AbortRun(running.run_id))
        case Aborting():
            pass
    state.cancel_tickets.setdefault(task.job_id, []).append(event.ticket)


def restore(state: State, event: TasksRestored, now_ms: float) -> None:
    """Take up what an earlier daemon left: finished tasks are remembered, unfinished ones wait again.

    1. A task that no pool serves any more ends.
    2. One that lost `daemons_lost_max` daemons ends: a poison task must not take them down for ever.
    3. A best-effort one ends as WORKER_RESET if it may have delivered tokens: no re-run can repeat them.
    4. All others wait in the set that `return_home` says; a strict one goes on behind the tokens that it delivered.
    """
    for task, log_bytes in event.finished:
        assert isinstance(task.phase, Ended)
        _index(state, task)
        endings.remember(state, task, task.phase.outcome, log_bytes, task.phase.at_ms)
    endings.bound_logs(state)
    silent = frozenset(event.silent)
    for task in event.unfinished:
        _index(state, task)
        state.counts.enqueued += 1
        _restore_unfinished(state, task, now_ms, is_silent=task.job_id in silent)
    endings.expire(state, now_ms)


def _restore_unfinished(state: State, task: Task, now_ms: float, *, is_silent: bool) -> None:
    home = return_home.choose(state, task, now_ms)
    task.bucket = 0
    task.memory_bytes = 0 if home is None else memory_of(task, home)
    state.quotas.hold(task)
    if home is None:  # 1
        message = "No pool serves this model any more."
        endings.fail(state, task, Code.POOL_UNAVAILABLE, Reason.MODEL, message, 10_000)
    elif task.daemons_lost >= state.host.daemons_lost_max:  # 2
        refused = Refused(
            code=Code.WORKER_RESET,
            reason=Reason.POISON,
            message="Every daemon that ran this task died.",
            engine=task.engine,
            is_final=True,
        )
        endings.finish(state, task, Outcome(error=refused, emitted=task.emitted))
    elif task.attempt and not task.is_strict and not is_silent:  # 3
        message = "The daemon was restarted while the task ran."
        endings.fail(state, task, Code.WORKER_RESET, Reason.SHUTDOWN, message, 1_000)
    else:  # 4
        task.attempts_before = task.attempt
        task.set_id = home.set_id
        task.set_kind = home.kind
        waiting.enter(state, task, now_ms)
