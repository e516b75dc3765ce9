"""What follows from the reports about runs: ends, re-runs, aborts, watchdogs, and slots that come free.

A run that lost its worker is run again from its start, before all others of its class, if the stream can go on without
a seam: the task is strict (the delivered tokens are compared and skipped) or has delivered nothing. A task that lost
`attempts_max` workers is poison: it ends, is not retriable, and takes no further worker with it. A run that the engine
refused because it was busy is none of these attempts, nor is one that never reached it: such a task waits again, at the
head, until its deadline.
"""

from math import inf

from supervisor.core import ejection, endings, sessions, trials, waiting
from supervisor.core.agenda import Alarm
from supervisor.core.effects import AbortRun, ConfirmSlotIdle
from supervisor.core.events import (
    ReadersCame,
    ReadersLeft,
    RunAborted,
    RunFailed,
    RunFinished,
    RunStalled,
    SlotsSeenIdle,
)
from supervisor.core.lifecycle import Phase
from supervisor.core.refusals import Refused
from supervisor.core.replicas import Replica
from supervisor.core.state import State, note_load
from supervisor.core.tasks import Aborting, Outcome, Running, Task
from supervisor.wire.codes import Code, FinishReason, Reason

SLOT_IDLE_WITHIN_MS = 5_000
RETRY_RESET_MS = 1_000
WHEN_IT_RUNS_AGAIN_MS = inf
"""When a grace ends that passed while its task had no run."""


def end_run(state: State, running: Running, *, is_slot_proven_free: bool, kv_tokens: int | None = 0) -> None:
    """A run is over: give its slot back, or first see that the engine has stopped working on it.

    A worker that is being stopped takes its slots with it. `kv_tokens` of KV are left in it that its session can use;
    None: those that lay there before, for the engine refused the run.
    """
    task = state.tasks[state.runs.pop(running.run_id)]
    state.sets[task.set_id].in_service.end(task.expected_tokens, running.started_ms)
    state.agenda.note_pointless(state.is_live)
    replica = state.replicas[running.pool_id]
    if replica.runs.pop(running.run_id, None) is None:
        return  # its process is gone, and the slot with it
    if replica.exclusive_run == running.run_id:
        replica.exclusive_run = None
    if kv_tokens is not None:
        sessions.end_turn(state, replica, running.run_id, kv_tokens)
    if not is_slot_proven_free and replica.phase is Phase.READY:
        replica.freeing.add(running.run_id)
        state.out.append(ConfirmSlotIdle(replica.pool_id, replica.incarnation, running.run_id, SLOT_IDLE_WITHIN_MS))
    else:
        sessions.free_slot(state, replica, running.run_id)
    note_load(state, replica)


def note_finished(state: State, event: RunFinished, now_ms: float) -> None:
    """The engine completed the answer."""
    found = state.task_of_run(event.run_id)
    if found is None:
        return
    task, running = found
    home = state.set_of(task)
    home.forecast.observe(now_ms - running.started_ms, task.expected_tokens)
    ejection.note_success(state, running, now_ms)
    kv_tokens = (event.tokens_in or 0) + event.tokens_out
    end_run(state, running, is_slot_proven_free=True, kv_tokens=kv_tokens)
    task.emitted = max(task.emitted, event.emitted)
    outcome = Outcome(
        finish_reason=event.finish_reason,
        tokens_in=event.tokens_in,
        tokens_out=event.tokens_out,
        emitted=task.emitted,
        decode_ms=event.decode_ms,
        kv_warmth=running.kv_warmth and event.tokens_cached > 0,
    )
    endings.finish(state, task, outcome)


def note_failed(state: State, event: RunFailed, now_ms: float) -> None:
    """The run broke: the caller's fault, the engine's, or the worker is gone.

    A run that was being aborted ends as that was decided: a cancelled task is never run again.
    """
    found = state.task_of_run(event.run_id)
    if found is None:
        return
    task, running = found
    _judge_failure(state, task, running, event, now_ms)
    if event.is_busy:
        sessions.take_back_turn(state, task)
    end_run(state, running, is_slot_proven_free=event.is_client_fault, kv_tokens=None if event.is_busy else 0)
    task.emitted = max(task.emitted, event.emitted)
    if event.is_worker_lost:
        _doubt(state, running)
    if isinstance(task.phase, Aborting) and _is_decided(task.phase):
        outcome = Outcome(finish_reason=task.phase.finish_reason, error=task.phase.error, emitted=task.emitted)
        endings.finish(state, task, outcome)
    elif event.is_client_fault:
        endings.fail(state, task, Code.INVALID_PARAMS, _reason(event.reason), event.message)
    elif event.is_busy and (task.is_strict or not task.emitted):
        task.turned_away += 1
        waiting.return_to_front(state, task, now_ms)
    elif event.is_worker_lost:
        task.turned_away += event.is_unseen
        _retry_or_reset(state, task, event.message, now_ms)
    else:
        endings.fail(state, task, Code.WORKER_RESET, _reason(event.reason), event.message, RETRY_RESET_MS)


def _judge_failure(state: State, task: Task, running: Running, event: RunFailed, now_ms: float) -> None:
    """What a failed run says of its worker. Connections that break together are one failure of it."""
    is_cancelled = isinstance(task.phase, Aborting) and _is_decided(task.phase)
    is_known = event.is_worker_lost and bool(state.replicas[running.pool_id].doubts)
    if event.emitted > task.emitted:
        ejection.note_tokens(state, running)
    if event.is_busy:
        ejection.note_busy(state, running, now_ms)
    elif is_cancelled or is_known or event.is_client_fault or event.reason == Reason.DETERMINISM:
        ejection.note_void(state, running, now_ms)
    else:
        ejection.note_failure(state, running, event.message, now_ms)


def _judge_abort(state: State, aborting: Aborting, event: RunAborted, now_ms: float) -> None:
    """What an aborted run says of its worker: a stall is its fault, and so is a wall reached without one token."""
    running, error = aborting.running, aborting.error
    if event.tokens_out:
        ejection.note_tokens(state, running)
    is_silent = error is not None and error.reason is Reason.WALL and not event.tokens_out
    if error is not None and (error.reason is Reason.STALLED or is_silent):
        ejection.note_failure(state, running, error.message, now_ms)
    else:
        ejection.note_void(state, running, now_ms)


def _is_decided(aborting: Aborting) -> bool:
    return aborting.finish_reason is not None or aborting.error is not None


def _doubt(state: State, running: Running) -> None:
    """The engine may be dead, and its exit not yet be reported: nothing goes there until its slot was seen idle."""
    replica = state.replicas[running.pool_id]
    if running.run_id in replica.freeing:
        replica.doubts.add(running.run_id)


def _reason(word: str) -> Reason:
    return Reason(word) if word in Reason._value2member_map_ else Reason.ENGINE


def _retry_or_reset(state: State, task: Task, message: str, now_ms: float) -> None:
    if task.attempt - task.attempts_before - task.turned_away >= state.host.attempts_max:
        refused = Refused(
            code=Code.WORKER_RESET,
            reason=Reason.POISON,
            message="Every worker that ran this task was lost.",
            engine=task.engine,
            is_final=True,
        )
        endings.finish(state, task, Outcome(error=refused, emitted=task.emitted))
    elif task.is_strict or not task.emitted:
        waiting.return_to_front(state, task, now_ms)
    else:
        endings.fail(state, task, Code.WORKER_RESET, Reason.ENGINE, message, RETRY_RESET_MS)


def abort(state: State, task: Task, running: Running, error: Refused | None) -> None:
    """Stop a run; its end is decided when the relay has counted. No error: the worker is lost, try again."""
    task.phase = Aborting(running, None, error)
    state.out.append(AbortRun(running.run_id))


def abort_all(state: State, replica: Replica, error: Refused | None) -> None:
    """Stop every run of a replica."""
    for job_id in list(replica.runs.values()):
        task = state.tasks[job_id]
        if isinstance(task.phase, Running):
            abort(state, task, task.phase, error)


def reset_all(state: State, replica: Replica, reason: Reason, message: str) -> None:
    """End every run of a worker as WORKER_RESET, which its callers may try again."""
    refused = Refused(
        code=Code.WORKER_RESET,
        reason=reason,
        message=message,
        retry_after_ms=RETRY_RESET_MS,
        engine=replica.plan.engine,
        pool_id=replica.plan.public_id,
    )
    abort_all(state, replica, refused)


def note_aborted(state: State, event: RunAborted, now_ms: float) -> None:
    """Nothing more will come of the run: now its task ends, or goes back to its place."""
    found = state.task_of_run(event.run_id)
    if found is None:
        return
    task, running = found
    assert isinstance(task.phase, Aborting), f"{task.job_id} was not aborting"
    aborting = task.phase
    _judge_abort(state, aborting, event, now_ms)
    is_of_use = _is_decided(aborting) and aborting.error is None and event.tokens_out > 0
    kv_tokens = (event.tokens_in or 0) + event.tokens_out if is_of_use else 0
    end_run(state, running, is_slot_proven_free=False, kv_tokens=kv_tokens)
    task.emitted = max(task.emitted, event.emitted)
    if not _is_decided(aborting):
        trials.note_end(state, running, now_ms, is_failed=True)
        _retry_or_reset(state, task, "The worker was lost.", now_ms)
        return
    outcome = Outcome(
        finish_reason=aborting.finish_reason,
        error=aborting.error,
        tokens_in=event.tokens_in,
        tokens_out=event.tokens_out,
        emitted=task.emitted,
        decode_ms=event.decode_ms,
        kv_warmth=running.kv_warmth and event.tokens_out > 0,
    )
    endings.finish(state, task, outcome)


def _time_out(state: State, run_id: int, reason: Reason, message: str) -> None:
    found = state.task_of_run(run_id)
    if found is None or not isinstance(found[0].phase, Running):
        return
    task, running = found
    refused = Refused(
        code=Code.DECODE_TIMEOUT,
        reason=reason,
        message=message,
        retry_after_ms=RETRY_RESET_MS,
        engine=task.engine,
        pool_id=state.replicas[running.pool_id].plan.public_id,
    )
    abort(state, task, running, refused)


def note_stalled(state: State, event: RunStalled) -> None:
    """The idle watchdog fired (ORCH-3016)."""
    _time_out(state, event.run_id, Reason.STALLED, "The engine stopped giving tokens.")


def note_wall(state: State, run_id: int) -> None:
    """The wall watchdog fired (ORCH-3016)."""
    _time_out(state, run_id, Reason.WALL, "The task ran longer than its pool allows.")


def note_slots_idle(state: State, replica: Replica, event: SlotsSeenIdle) -> None:
    """The engine stopped working on aborted runs: their slots can take tasks again."""
    for run_id in event.run_ids:
        if run_id in replica.freeing:
            sessions.free_slot(state, replica, run_id)
    replica.freeing.difference_update(event.run_ids)
    replica.doubts.difference_update(event.run_ids)
    note_load(state, replica)


def note_readers_left(state: State, event: ReadersLeft, now_ms: float) -> None:
    """A running task that nobody reads any more is cancelled after the grace; a waiting one never is."""
    task = state.tasks.get(event.job_id)
    if task is not None and isinstance(task.phase, Running):
        begin_grace(state, task, task.phase, now_ms)


def begin_grace(state: State, task: Task, running: Running, now_ms: float) -> None:
    """Nobody reads a running task: how long it may go on so is its pool's to say."""
    grace_ms = state.replicas[running.pool_id].plan.disconnect_grace_ms
    if grace_ms >= 0:
        state.readerless[task.job_id] = now_ms + grace_ms
        state.agenda.add(now_ms + grace_ms, Alarm.READERS_GONE, task.job_id)
    else:
        state.readerless.pop(task.job_id, None)


def note_readers_came(state: State, event: ReadersCame) -> None:
    """Somebody reads again."""
    state.readerless.pop(event.job_id, None)


def note_grace_over(state: State, job_id: str, now_ms: float) -> None:
    """The grace of a stream without readers is over, if it is still without them.

    One that lost its worker meanwhile waits for its re-run, which gets a grace of its own: see `begin_grace`.
    """
    due_ms = state.readerless.get(job_id)
    if due_ms is None or due_ms > now_ms:
        return
    task = state.tasks[job_id]
    state.readerless[job_id] = WHEN_IT_RUNS_AGAIN_MS
    if isinstance(task.phase, Running):
        del state.readerless[job_id]
        task.phase = Aborting(task.phase, FinishReason.CANCELED, None)
        state.out.append(AbortRun(task.phase.running.run_id))
