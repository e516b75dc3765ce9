"""What can move now? The one place that answers, for an arrival, a completion, a cancel and a drain alike.

Only sets that were marked dirty are looked at: nothing else can have become movable. They are taken in the order of
their names, so that the same events give the same moves in every process. A slot is reserved in the same
step that returns the effect. The head of the queue is never passed by: a strict task that needs an empty worker holds
its set until it has one.
"""

from supervisor.core import ejection, placement, policy, runs, sessions, waiting
from supervisor.core.agenda import Alarm
from supervisor.core.effects import CommitAttempt, StartRun
from supervisor.core.replicas import Replica, ReplicaSet
from supervisor.core.state import State
from supervisor.core.tasks import Running, Task


def next_moves(state: State, now_ms: float) -> None:
    """Give waiting tasks to free slots until nothing moves."""
    if state.is_dispatching:
        for set_id in sorted(state.dirty):
            _fill(state, state.sets[set_id], now_ms)
    state.dirty.clear()


def _fill(state: State, home: ReplicaSet, now_ms: float) -> None:
    while (task := home.waiting.head(now_ms)) is not None:
        if task.deadline_at_ms <= now_ms:  # its alarm is due as well, but a report may be handled before it
            waiting.expire(state, task)
            continue
        warm = sessions.warm_replica(state, task, now_ms)
        replica = placement.choose(task, home, warm)
        if replica is None:
            home.waiting.hold(task)
            return
        if state.policy is not None:
            warm_pool = None if warm is None else warm.pool_id
            replica = policy.place(state.policy, task, home, replica, now_ms, warm_pool=warm_pool)
        home.waiting.take(task, now_ms)
        state.quotas.begin_run(task, now_ms)
        state.agenda.note_pointless(state.is_live)
        _start(state, replica, task, now_ms)
        home.by_load.note(replica)


def _start(state: State, replica: Replica, task: Task, now_ms: float) -> None:
    run_id = state.next_run
    state.next_run += 1
    task.attempt += 1
    if not task.emitted:
        task.queue_time_ms = now_ms - task.admitted_ms
    is_alone = placement.needs_worker_alone(task, replica)
    place = sessions.take_slot(state, task, replica, run_id, now_ms, placement.SLOT_ALONE if is_alone else None)
    running = Running(replica.pool_id, replica.incarnation, run_id, now_ms, place.is_warm)
    task.phase = task.last_run = running
    replica.runs[run_id] = task.job_id
    state.sets[task.set_id].in_service.begin(task.expected_tokens, now_ms)
    state.runs[run_id] = task.job_id
    if is_alone:
        replica.exclusive_run = run_id
    ejection.note_begun(state, replica, run_id, now_ms)
    if state.readerless.get(task.job_id) == runs.WHEN_IT_RUNS_AGAIN_MS:
        runs.begin_grace(state, task, running, now_ms)
    plan = replica.plan
    state.agenda.add(now_ms + plan.wall_ms, Alarm.RUN_WALL, str(run_id))
    state.out.append(CommitAttempt(task.job_id, task.attempt))
    state.out.append(
        StartRun(
            task,
            run_id,
            replica.pool_id,
            replica.replica_id,
            replica.incarnation,
            replica.engine_version or "unknown",
            plan.model_digest or "",
            plan.idle_ms,
            plan.first_token_ms,
            place.slot if plan.can_pin_slots else None,
            place.is_warm,
        )
    )
