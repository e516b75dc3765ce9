"""What is true of the state after every event. The simulation and the state machines check it; the daemon does not."""

from supervisor.core.lifecycle import Phase
from supervisor.core.placement import choose
from supervisor.core.replicas import Replica, ReplicaSet
from supervisor.core.state import State
from supervisor.core.tasks import Aborting, Accepting, Ended, Ending, Running, Waiting


def violations(state: State, now_ms: float) -> list[str]:
    """Everything that is wrong, one sentence each; empty for a sound state. O(tasks)."""
    found = [*_conservation(state), *_waiting(state, now_ms), *_bounds(state)]
    for replica in state.replicas.values():
        found += _slots(state, replica)
    return found


def _conservation(state: State) -> list[str]:
    """CONTRACT §8: enqueued = finished + canceled + dropped + waiting + running."""
    phases = [type(task.phase) for task in state.tasks.values()]
    alive = sum(phase in (Waiting, Running, Aborting) for phase in phases)
    counts = state.counts
    found = []
    if counts.enqueued != counts.finished + counts.canceled + counts.dropped + alive:
        found.append(f"counts do not add up: {counts} with {alive} alive")
    pending = sum(phase in (Accepting, Ending) for phase in phases)
    if pending != state.writes_pending:
        found.append(f"{pending} tasks are being written, {state.writes_pending} are counted")
    if sum(len(own) for own in state.by_task.values()) != len(state.tasks):
        found.append("the index by task id and the tasks differ")
    if len(state.ended) != sum(phase is Ended for phase in phases):
        found.append("the remembered ends and the ended tasks differ")
    if state.log_bytes != sum(state.logs.values()):
        found.append("the bytes of the kept streams are miscounted")
    return found


def _waiting(state: State, now_ms: float) -> list[str]:
    found = []
    for home in state.sets.values():
        tasks = list(home.waiting)
        if len(tasks) != len(home.waiting):
            found.append(f"{home.set_id}: depth and content differ")
        found += [f"{task.job_id} is in a waitlist as {task.phase}" for task in tasks if task.phase != Waiting()]
        found += [f"{task.job_id} waits in a foreign set" for task in tasks if task.set_id != home.set_id]
        if home.waiting.size_bytes != sum(task.size_bytes for task in tasks):
            found.append(f"{home.set_id}: waiting bytes are miscounted")
        head = home.waiting.head(now_ms)
        if (
            head
            and state.halt_deadline_ms is None
            and choose(head, [member for member in home.members if member.is_serving])
        ):
            found.append(f"{home.set_id}: work and room, yet idle")
    waiting = sum(isinstance(task.phase, Waiting) for task in state.tasks.values())
    if waiting != sum(len(home.waiting) for home in state.sets.values()):
        found.append("a waiting task is in no waitlist")
    return found


def _bounds(state: State) -> list[str]:
    return [f"{home.set_id}: negative reservation" for home in state.sets.values() if _is_negative(home)]


def _is_negative(home: ReplicaSet) -> bool:
    return home.reserved_bytes < 0 or any(count < 0 for count in home.reserved.values())


def _slots(state: State, replica: Replica) -> list[str]:
    name, found = replica.pool_id, []
    if replica.load > max(replica.slots, 0):
        found.append(f"{name}: {replica.load} of {replica.slots} slots are taken")
    if replica.runs and replica.phase not in (Phase.READY, Phase.STOPPING):
        found.append(f"{name}: runs tasks while {replica.phase}")
    if (replica.phase is Phase.STOPPING) != (replica.stopping is not None):
        found.append(f"{name}: stopping without a goal, or a goal without a stop")
    if replica.exclusive_run is not None and (replica.exclusive_run not in replica.runs or replica.load > 1):
        found.append(f"{name}: a strict task does not have the worker to itself")
    for run_id, job_id in replica.runs.items():
        phase = state.tasks[job_id].phase
        running = phase.running if isinstance(phase, Aborting) else phase
        if not isinstance(running, Running) or running.run_id != run_id:
            found.append(f"{name}: run {run_id} of {job_id} is {phase}")
    return found
