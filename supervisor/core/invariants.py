"""What is true of the state after every event. The simulation and the state machines check it; the daemon does not."""

from collections import Counter

from supervisor.core.lifecycle import Phase
from supervisor.core.memory_invariants import memory_violations
from supervisor.core.placement import SLOT_ALONE, can_take
from supervisor.core.pool_invariants import pool_violations
from supervisor.core.quotas import Usage
from supervisor.core.replicas import Replica, ReplicaSet, Wanted
from supervisor.core.session import Seat
from supervisor.core.state import State
from supervisor.core.tasks import Aborting, Accepting, Ended, Ending, Running, Waiting
from supervisor.core.waiting import is_hopeless


def violations(state: State, now_ms: float) -> list[str]:
    """Everything that is wrong, one sentence each; empty for a sound state. O(tasks)."""
    found = [*_conservation(state), *_reservations(state), *_quotas(state), *_alarms(state)]
    for home in state.sets.values():
        found += _waiting(state, home, now_ms)
        found += _offers(home)
    for replica in state.replicas.values():
        found += _slots(state, replica)
        found += _slot_table(state, replica)
        found += _devices(state, replica)
    found += _sessions(state)
    found += pool_violations(state)
    found += memory_violations(state)
    if state.out or (state.dirty and state.is_dispatching):
        found.append("the last event was not settled")
    return found


def _conservation(state: State) -> list[str]:
    """The law of the counters: enqueued = finished + canceled + dropped + waiting + running."""
    phases = Counter(type(task.phase) for task in state.tasks.values())
    counts, found = state.counts, []
    alive = phases[Waiting] + phases[Running] + phases[Aborting]
    if counts.enqueued != counts.finished + counts.canceled + counts.dropped + alive:
        found.append(f"counts do not add up: {counts} with {alive} alive")
    if phases[Accepting] + phases[Ending] != state.writes_pending:
        found.append(
            f"{phases[Accepting]} + {phases[Ending]} tasks are being written, {state.writes_pending} are counted"
        )
    if sum(len(own) for own in state.by_task.values()) != len(state.tasks):
        found.append("the index by task id and the tasks differ")
    if len(state.ended) != phases[Ended]:
        found.append("the remembered ends and the ended tasks differ")
    if state.log_bytes != sum(state.logs.values()):
        found.append("the bytes of the kept streams are miscounted")
    if phases[Waiting] != sum(len(home.waiting) for home in state.sets.values()):
        found.append("a waiting task is in no waitlist")
    if phases[Running] + phases[Aborting] != len(state.runs):
        found.append(f"{phases[Running]} + {phases[Aborting]} tasks run, {len(state.runs)} runs are known")
    return found


def _reservations(state: State) -> list[str]:
    """Room is kept for exactly the tasks whose record is being written."""
    accepting = [task for task in state.tasks.values() if isinstance(task.phase, Accepting)]
    found = []
    if {task.job_id for task in accepting} != set(state.accept_tickets):
        found.append("tickets wait for tasks that are not being written")
    for home in state.sets.values():
        own = [task for task in accepting if task.set_id == home.set_id]
        if home.reserved_bytes != sum(task.size_bytes for task in own):
            found.append(f"{home.set_id}: reserved bytes are miscounted")
        if +Counter(home.reserved) != Counter(task.priority for task in own):
            found.append(f"{home.set_id}: reserved tasks are miscounted")
    return found


def _quotas(state: State) -> list[str]:
    """What each tenant is said to hold is what its tasks hold."""
    held: dict[str, Usage] = {}
    for task in state.tasks.values():
        if isinstance(task.phase, Ending | Ended):
            continue
        usage = held.setdefault(task.tenant, Usage())
        usage.jobs += 1
        usage.waiting += isinstance(task.phase, Accepting | Waiting)
        usage.memory_bytes += task.memory_bytes
        usage.expected_tokens += task.expected_tokens
    counted = {tenant: state.quotas.usage_of(tenant) for tenant in {*held, *state.quotas.tenants()}}
    return [
        f"tenant {tenant} holds {held.get(tenant, Usage())}, counted are {usage}"
        for tenant, usage in sorted(counted.items())
        if usage != held.get(tenant, Usage())
    ]


def _alarms(state: State) -> list[str]:
    """Whatever has a moment will be looked at then: no alarm is missing."""
    moments = {
        f"deadline of {task.job_id}": task.deadline_at_ms for task in state.tasks.values() if task.phase == Waiting()
    }
    for task in state.tasks.values():
        if isinstance(task.phase, Running):
            wall_ms = state.replicas[task.phase.pool_id].plan.wall_ms
            moments[f"wall of {task.job_id}"] = task.phase.started_ms + wall_ms
    moments |= {f"grace of {job_id}": at_ms for job_id, at_ms in state.readerless.items()}
    moments |= {f"phase of {name}": pool.due_ms for name, pool in state.replicas.items() if pool.due_ms is not None}
    for name, pool in state.replicas.items():
        if pool.breaker.due_ms is not None:
            moments[f"breaker of {name}"] = pool.breaker.due_ms
        if pool.breaker.is_paused:
            moments[f"pause of {name}"] = pool.breaker.paused_until_ms
    moments |= {f"end of session {key}": session.expires_ms for key, session in state.sessions.items()}
    if state.retention_due_ms is not None:
        moments["retention"] = state.retention_due_ms
    next_ms = state.agenda.next_due_ms()
    return [f"nobody is woken for the {what}" for what, at_ms in moments.items() if next_ms is None or next_ms > at_ms]


def _waiting(state: State, home: ReplicaSet, now_ms: float) -> list[str]:
    name, tasks, found = home.set_id, list(home.waiting), []
    if len(tasks) != len(home.waiting):
        found.append(f"{name}: depth and content differ")
    found += [f"{task.job_id} is in a waitlist as {task.phase}" for task in tasks if task.phase != Waiting()]
    found += [f"{task.job_id} waits in a foreign set" for task in tasks if task.set_id != name]
    if home.waiting.size_bytes != sum(task.size_bytes for task in tasks):
        found.append(f"{name}: waiting bytes are miscounted")
    head = home.waiting.head(now_ms)
    if head is None or state.halt_deadline_ms is not None:
        return found
    due_ms = state.agenda.next_due_ms()
    is_behind = due_ms is not None and due_ms <= now_ms  # what is due will be handled next, and may end them
    if not is_behind and all(is_hopeless(member, now_ms) for member in home.members):
        found.append(f"{name}: {len(tasks)} tasks wait without hope")
    if state.is_dispatching and any(member.can_run and can_take(head, member) for member in home.members):
        found.append(f"{name}: work and room, yet idle")
    return found


def _offers(home: ReplicaSet) -> list[str]:
    """What the set keeps beside its members is what they offer."""
    serving = [member for member in home.members if member.can_run]
    found = []
    if home.serving != serving or home.slots_serving != sum(member.slots_trusted for member in serving):
        found.append(f"{home.set_id}: its serving members are miscounted")
    if home.members and home.capacity_total != sum(member.plan.queue_capacity for member in home.members):
        found.append(f"{home.set_id}: its capacity is miscounted")
    found += [f"{member.pool_id} is in a foreign set" for member in home.members if member.set_id != home.set_id]
    return found


def _devices(state: State, replica: Replica) -> list[str]:
    """No worker is on its way or serves on a GPU that is withheld, and a GPU is withheld for a fault that is known."""
    name, is_spanning = replica.pool_id, len(replica.devices) > 1
    at_work = replica.phase not in (Phase.IDLE, Phase.UNPLACED, Phase.RESTING, Phase.STOPPING, Phase.BROKEN, Phase.OFF)
    causes = [state.devices.cause_of(uuid, is_spanning=is_spanning) for uuid in replica.devices]
    is_at_fault = at_work and replica.wanted is not Wanted.HALT and any(causes)
    return [f"{name} is {replica.phase} on a GPU that is withheld: {causes}"] if is_at_fault else []


def _slots(state: State, replica: Replica) -> list[str]:
    name, found = replica.pool_id, []
    if replica.load > max(replica.slots, 0):
        found.append(f"{name}: {replica.load} of {replica.slots} slots are taken")
    if replica.runs and replica.phase not in (Phase.READY, Phase.STOPPING):
        found.append(f"{name}: runs tasks while {replica.phase}")
    if replica.freeing and replica.phase is not Phase.READY:
        found.append(f"{name}: slots are freed while {replica.phase}")
    if not replica.doubts <= replica.freeing:
        found.append(f"{name}: doubted for a run whose slot is free")
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


def _slot_table(state: State, replica: Replica) -> list[str]:
    """Each slot is free or has one run; a warm one holds the KV of one session, which says so too."""
    name, table, found = replica.pool_id, replica.slot_table, []
    taken, warm = table.taken(), table.warm()
    if replica.phase is not Phase.READY:
        return [f"{name}: slots are known while {replica.phase}"] if taken or warm else []
    probe = {replica.generating.probe} - {None}
    if set(taken) != replica.runs.keys() | replica.freeing | probe:
        found.append(f"{name}: slots of runs {sorted(taken)}, runs {sorted(replica.runs)} and {replica.freeing}")
    if len(set(taken.values())) != len(taken) or table.free + len(taken) != replica.slots:
        found.append(f"{name}: {table.free} free slots and {taken} are not {replica.slots}")
    if replica.exclusive_run is not None and taken.get(replica.exclusive_run) != SLOT_ALONE:
        found.append(f"{name}: a strict task that is alone has slot {taken.get(replica.exclusive_run)}")
    for slot, key in warm.items():
        session = state.sessions.get(key)
        if session is None or not session.is_warm or session.seat != Seat(name, replica.incarnation, slot):
            found.append(f"{name}: slot {slot} is warm for {key}, which is {session}")
    return found


def _sessions(state: State) -> list[str]:
    """KV lies where the session says, in a worker that serves now; nothing is kept past its ceilings."""
    found = []
    if len(state.sessions) > state.host.sessions_max:
        found.append(f"{len(state.sessions)} sessions are remembered")
    for key, session in state.sessions.items():
        if session.turns > state.host.session_turns_max or bool(session.tokens) > (session.seat is not None):
            found.append(f"{key} is {session}")
        if session.seat is None:
            continue
        replica = state.replicas[session.seat.pool_id]
        is_there = replica.phase is Phase.READY and replica.wanted is not Wanted.DRAIN
        if replica.incarnation != session.seat.incarnation or not is_there or session.is_deleted:
            found.append(f"{key} has its KV in {session.seat} of {replica.replica_id}, {replica.phase}")
        holder = replica.slot_table.warm().get(session.seat.slot)
        if session.run_id is None and (holder != key or session.turns >= state.host.session_turns_max):
            found.append(f"{key} has its KV in {session.seat}, where that of {holder} lies")
        if session.run_id is not None and replica.slot_table.taken().get(session.run_id) != session.seat.slot:
            found.append(f"{key} runs in {session.seat} as {session.run_id}")
    return found
