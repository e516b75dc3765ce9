"""Workers that come and go while the daemon runs: which set each belongs to, where its tasks go, when it is forgotten.

A pool's current revision is in the set of its kind, with its equals of other pools (ORCH-3007). Every other worker of a
pool has a set of its own (`variant`): a candidate and a canary so that the tasks of the current ones never run on them
unasked, a standby and a retiring one so that they end what they have and get nothing new. Aliases lead to current
revisions and canaries only.

A worker *retires*: it ends what it has, until `retire_by_ms`, is stopped, and is forgotten. Decides nothing of who
takes over from whom: that is `rollouts`'.
"""

from supervisor.core import leases, masks, memory_desk, runs, sessions, waiting, wedge, workers
from supervisor.core.agenda import Alarm
from supervisor.core.effects import ForgetWorker
from supervisor.core.fitting import find_refuge
from supervisor.core.lifecycle import Phase, Signal
from supervisor.core.meters import find_meter
from supervisor.core.plan import PoolPlan
from supervisor.core.replicas import Replica, ReplicaSet
from supervisor.core.revisions import Role, parse_key
from supervisor.core.rollout import Pool
from supervisor.core.state import State, join_set, key_of_replica, move_each, reroute, set_key, touch
from supervisor.core.tasks import Task
from supervisor.core.waitlist import Waitlist
from supervisor.wire.codes import Reason


def add(state: State, plan: PoolPlan, role: Role, now_ms: float) -> Replica:
    """A worker that was not there before: it looks for its devices and goes its way."""
    key = set_key(plan, None)
    meter = find_meter(plan, key, state.replicas.values())
    replica = Replica(plan=plan, set_key=key, meter=meter, role=role, since_ms=now_ms)
    replica.set_key = key_of_replica(replica)
    state.replicas[plan.pool_id] = replica
    join_set(state, replica)
    if role is not Role.CURRENT:
        state.aside.add(plan.pool_id)
    leases.bind(state)
    memory_desk.refuse_masks(state, state.devices.seen, now_ms)
    masks.place_all(state, now_ms)
    return replica


def add_pool(state: State, plan: PoolPlan, now_ms: float) -> None:
    """A pool that the configuration did not have before."""
    pool_id, revision = parse_key(plan.pool_id)
    number = max(revision + 1, next_revision(state, pool_id))
    state.pools[pool_id] = Pool(pool_id=pool_id, current=plan.pool_id, next_revision=number)
    add(state, plan, Role.CURRENT, now_ms)


def next_revision(state: State, pool_id: str) -> int:
    """The number of the next revision of a pool, one that was just removed included: no number is given twice."""
    known = state.pools.get(pool_id)
    numbers = [parse_key(key)[1] + 1 for key, each in state.replicas.items() if each.plan.public_id == pool_id]
    return max([1, *numbers, *([] if known is None else [known.next_revision])])


def tune(state: State, plan: PoolPlan, now_ms: float) -> None:
    """Other bounds for a worker that goes on as it is."""
    replica = state.replicas[plan.pool_id]
    has_new_order = plan.queue_order is not replica.plan.queue_order
    has_new_probes = plan.probe_every_ms != replica.plan.probe_every_ms
    replica.plan = plan
    if has_new_probes:
        wedge.tune(state, replica, now_ms)
    home = state.sets[replica.set_id]
    if has_new_order:
        waiting_tasks, returned = list(home.waiting), home.waiting.returned()
        home.waiting = Waitlist(plan.queue_order, state.quotas.weight_of)
        for task in waiting_tasks:
            if task not in returned:
                home.waiting.push(task)
        for task in reversed(returned):
            home.waiting.push_front(task)
    touch(state, replica)


def give_role(state: State, replica: Replica, role: Role) -> ReplicaSet:
    """Make a worker something else to its pool; gives the set that it leaves. Its runs go on.

    Where nobody is left in that set, its runs belong to the new one: that is where they go if they lose their worker.
    """
    source = state.sets[replica.set_id]
    source.members.remove(replica)
    replica.role = role
    replica.set_key = key_of_replica(replica)
    join_set(state, replica)
    source.recount()
    target = state.sets[replica.set_id]
    if not source.members:
        for run_id, job_id in replica.runs.items():
            _take_along(state, run_id, state.tasks[job_id], source, target)
    (state.aside.discard if role is Role.CURRENT else state.aside.add)(replica.pool_id)
    state.dirty.add(source.set_id)
    reroute(state)
    return source


def _take_along(state: State, run_id: int, task: Task, source: ReplicaSet, target: ReplicaSet) -> None:
    found = state.task_of_run(run_id)
    if found is None or task.set_id != source.set_id:
        return
    source.in_service.end(task.expected_tokens, found[1].started_ms)
    target.in_service.begin(task.expected_tokens, found[1].started_ms)
    task.set_id = target.set_id


def scatter(state: State, source: ReplicaSet, rest: ReplicaSet, now_ms: float, *, is_bound: bool) -> None:
    """Let what waits in a set go where its alias leads now; what must or can go nowhere else goes to `rest`."""

    def is_hopeless(member: Replica) -> bool:
        return waiting.is_hopeless(member, now_ms)

    def target_of(task: Task) -> ReplicaSet:
        return find_refuge(state, task, source, is_hopeless, is_bound=is_bound) or rest

    move_each(state, source, target_of)
    waiting.end_if_hopeless(state, rest, now_ms)


def retire(state: State, replica: Replica, drain_ms: float, now_ms: float) -> None:
    """Let a worker end what it has within `drain_ms`; then it is stopped and forgotten."""
    sessions.evict_all(state, replica)
    replica.is_making_way = replica.is_promised = False
    source = give_role(state, replica, Role.RETIRING)
    replica.retire_by_ms = now_ms + drain_ms
    state.agenda.add(replica.retire_by_ms, Alarm.ROLLOUT, replica.pool_id)
    pool = state.pools.get(replica.plan.public_id)
    if pool is not None and pool.standby == replica.pool_id:
        pool.standby = None
    rest = state.sets[replica.set_id]
    if not source.members or source is rest:
        scatter(state, source, rest, now_ms, is_bound=replica.can_run)
    else:
        waiting.end_if_hopeless(state, source, now_ms)


def settle_aside(state: State, replica: Replica, now_ms: float) -> None:
    """A standby or a retiring worker: end its time, let go what it cannot end, stop it once it has nothing left.

    1. What it cannot run now and nobody saw a token of goes where its alias leads.
    2. A standby whose time is over, or that is not loaded any more, retires.
    3. A retiring one whose time is over ends what it has.
    4. A retiring one that has nothing is stopped, and forgotten once it is.
    """
    home = state.sets[replica.set_id]
    if not replica.can_run and len(home.waiting):  # 1
        scatter(state, home, home, now_ms, is_bound=False)
    is_due = replica.retire_by_ms is not None and replica.retire_by_ms <= now_ms
    is_idle = not replica.runs and not home.occupied_total
    if replica.role is Role.STANDBY:  # 2
        is_unloaded = replica.phase not in (Phase.READY, Phase.STOPPING) and is_idle
        if not (is_due or is_unloaded):
            return
        pool = state.pools.get(replica.plan.public_id)
        retire(state, replica, 0.0 if pool is None else pool.drain_ms, now_ms)
        home, is_due = state.sets[replica.set_id], False
    if is_due:  # 3
        message = "Another revision of the pool took over, and the task ran longer than its drain."
        runs.reset_all(state, replica, Reason.DRAINING, message)
        waiting.end_if_hopeless(state, home, now_ms)
        is_idle = not replica.runs and not home.occupied_total
    if is_idle:  # 4
        workers.give(state, replica, Signal.HALT, now_ms, "another revision took over")
        if replica.phase is Phase.OFF:
            _forget(state, replica, now_ms)


def _forget(state: State, replica: Replica, now_ms: float) -> None:
    home = state.sets[replica.set_id]
    home.members.remove(replica)
    home.recount()
    del state.replicas[replica.pool_id]
    state.aside.discard(replica.pool_id)
    reroute(state)
    _sweep_sets(state)
    state.out.append(ForgetWorker(replica.pool_id))
    for other in state.replicas.values():  # what waited for the memory that it had
        if other.is_short and (other.wanted_host_mib or shares_devices(state, other, replica)):
            workers.give(state, other, Signal.RETRY, now_ms)


def _sweep_sets(state: State) -> None:
    """A set that has no member, no task and no run is forgotten."""
    for home in list(state.sets.values()):
        if not home.members and not home.occupied_total and not home.in_service.count:
            del state.sets[home.set_id]
            state.dirty.discard(home.set_id)


def shares_devices(state: State, one: Replica, other: Replica) -> bool:
    """Whether two workers are for the same GPU."""
    return not masks.uuids_of(state, one).isdisjoint(masks.uuids_of(state, other))


def is_leaving(state: State, replica: Replica) -> bool:
    """Whether some other worker on the same devices is about to give its memory back."""
    return bool(beside(state, replica, Role.RETIRING))


def beside(state: State, replica: Replica, role: Role) -> list[Replica]:
    """The workers of that role, not a current one, on the same devices."""
    others = (state.replicas[key] for key in sorted(state.aside) if key != replica.pool_id)
    return [other for other in others if other.role is role and shares_devices(state, replica, other)]


def make_room(state: State, replica: Replica, now_ms: float) -> None:
    """A worker is short of memory: what is only kept for a rollback on its devices goes at once."""
    for other in beside(state, replica, Role.STANDBY):
        retire(state, other, state.pools[other.plan.public_id].drain_ms, now_ms)
