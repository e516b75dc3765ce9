"""The state of the core: one tree of small records, and the few look-ups over it. Decides nothing."""

from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct, field, structs

from supervisor.core.agenda import Agenda, Alarm, Entry
from supervisor.core.devices import DeviceLedger
from supervisor.core.effects import Effect
from supervisor.core.fault_book import FaultBook
from supervisor.core.lease import Lease
from supervisor.core.meters import find_meter
from supervisor.core.needs import NeedsBook
from supervisor.core.plan import HostPlan, PoolPlan
from supervisor.core.policy import Policy
from supervisor.core.quotas import Quotas
from supervisor.core.rates import Rates
from supervisor.core.replicas import Replica, ReplicaSet, SetKey
from supervisor.core.revisions import TRAFFIC, Role, parse_key
from supervisor.core.rollout import Pool
from supervisor.core.session import Session, key_of
from supervisor.core.slots import SessionKey
from supervisor.core.split import Split
from supervisor.core.tasks import Aborting, Running, Task, Waiting
from supervisor.core.waitlist import Waitlist
from supervisor.wire.codes import Engine


class Counts(Struct):
    """Every accepted task is in exactly one of these or is alive: they conserve."""

    enqueued: int = 0
    finished: int = 0
    canceled: int = 0
    dropped: int = 0


class State(Struct, kw_only=True):
    """Everything the core knows.

    `tasks` holds all known tasks by job id, finished ones included; `by_task` finds them by tenant and task id.
    `routes` gives the sets that serve a model under one of its names. `runs` maps run ids to job ids. `counting` holds
    submitted tasks whose prompt is being tokenized. `readerless` says when a running task without readers is to be
    cancelled; never, while one whose grace is over waits for its re-run. `sessions` are in the order of their last
    turn. `writes_pending` counts records on their way to the disk.
    `ended` and `logs` are in order of their end (values: when, and bytes of the kept stream). `dirty` names the sets in
    which something may have become movable.
    `out` gathers the effects of the event being handled. `policy` is the plugin that is asked, if there is one.
    `splits` are the aliases of which a canary takes a share.
    `pools` are those of the configuration by their public ids, `rolling` those that are in a rollout, `aside` the keys
    of workers that are not the current revision of their pool.
    """

    host: HostPlan
    quotas: Quotas
    replicas: dict[str, Replica]
    sets: dict[str, ReplicaSet]
    routes: dict[tuple[Engine, str], tuple[ReplicaSet, ...]]
    rates: Rates = field(default_factory=Rates)
    devices: DeviceLedger = field(default_factory=DeviceLedger)
    faults: FaultBook = field(default_factory=FaultBook)
    is_intent_stale: bool = False
    needs: NeedsBook = field(default_factory=NeedsBook)
    are_needs_stale: bool = False
    leases: dict[str, Lease] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    rolling: set[str] = field(default_factory=set)
    aside: set[str] = field(default_factory=set)
    tasks: dict[str, Task] = field(default_factory=dict)
    by_task: dict[str, dict[str, str]] = field(default_factory=dict)
    counting: dict[str, Task] = field(default_factory=dict)
    accept_tickets: dict[str, list[str]] = field(default_factory=dict)
    cancel_tickets: dict[str, list[str]] = field(default_factory=dict)
    readerless: dict[str, float] = field(default_factory=dict)
    writes_pending: int = 0
    runs: dict[int, str] = field(default_factory=dict)
    sessions: OrderedDict[SessionKey, Session] = field(default_factory=OrderedDict)
    ended: OrderedDict[str, float] = field(default_factory=OrderedDict)
    logs: OrderedDict[str, int] = field(default_factory=OrderedDict)
    log_bytes: int = 0
    agenda: Agenda = field(default_factory=Agenda)
    dirty: set[str] = field(default_factory=set)
    out: list[Effect] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    next_run: int = 1
    next_incarnation: int = 1
    next_life: int = 1
    gpu_cause: str | None = None
    is_journal_writable: bool = True
    journal_cause: str | None = None
    halt_deadline_ms: float | None = None
    quiesce_deadline_ms: float | None = None
    is_quiet: bool = False
    is_halt_complete: bool = False
    retention_due_ms: float | None = None
    policy: Policy | None = None
    splits: dict[tuple[Engine, str], Split] = field(default_factory=dict)

    @property
    def is_dispatching(self) -> bool:
        """Whether waiting tasks are given to free slots: not while the daemon stops or comes to rest."""
        return self.halt_deadline_ms is None and self.quiesce_deadline_ms is None

    @property
    def is_ready(self) -> bool:
        """Whether tasks can be stored and some worker takes the traffic of its alias (ORCH-3010). O(workers)."""
        is_open = self.halt_deadline_ms is None and self.is_journal_writable
        return is_open and any(each.is_serving and not each.is_ejected for each in self.replicas.values())

    def is_live(self, entry: Entry) -> bool:
        """Whether an alarm would still do something."""
        due_ms, alarm, key = entry
        if alarm is Alarm.TASK_DEADLINE:
            task = self.tasks.get(key)
            return task is not None and isinstance(task.phase, Waiting)
        if alarm is Alarm.RUN_WALL:
            return int(key) in self.runs
        if alarm is Alarm.SESSION_END:
            session = self.sessions.get(key_of(key))
            return session is not None and session.expires_ms <= due_ms
        return True

    def task_of_run(self, run_id: int) -> tuple[Task, Running] | None:
        """The task that this run serves now; None for a run that is over."""
        job_id = self.runs.get(run_id)
        if job_id is None:
            return None
        task = self.tasks[job_id]
        match task.phase:
            case Running() as running:
                return task, running
            case Aborting(running=running):
                return task, running
            case _:
                return None

    def find_task(self, tenant: str, task_id: str) -> Task | None:
        """A known task by the caller's own id."""
        job_id = self.by_task.get(tenant, {}).get(task_id)
        return None if job_id is None else self.tasks[job_id]

    def set_of(self, task: Task) -> ReplicaSet:
        """The set in whose waitlist the task stands or stood."""
        return self.sets[task.set_id]


def set_key(plan: PoolPlan, engine_version: str | None) -> SetKey:
    """The set that a pool belongs to, once its version is known."""
    return SetKey(
        plan.engine,
        plan.model_digest or plan.model_ref,
        plan.quant,
        plan.ctx,
        plan.sampler_profile_version,
        engine_version,
    )


def key_of_replica(replica: Replica) -> SetKey:
    """The set that a worker belongs to in its role: only current revisions share one."""
    key = set_key(replica.plan, replica.engine_version)
    if replica.engine_version is not None:
        key = structs.replace(key, beside_digest=replica.beside_digest)
    return key if replica.role is Role.CURRENT else structs.replace(key, variant=replica.pool_id)


def build(plans: tuple[PoolPlan, ...], host: HostPlan) -> State:
    """The state of a daemon that has just started: every worker idle, in its forming set."""
    state = State(host=host, quotas=Quotas(host.tenants), replicas={}, sets={}, routes={})
    for plan in plans:
        key = set_key(plan, None)
        replica = Replica(plan=plan, set_key=key, meter=find_meter(plan, key, state.replicas.values()))
        state.replicas[plan.pool_id] = replica
        pool_id, revision = parse_key(plan.pool_id)
        state.pools[pool_id] = Pool(pool_id=pool_id, current=plan.pool_id, next_revision=revision + 1)
        join_set(state, replica)
    return state


def join_set(state: State, replica: Replica) -> None:
    """Make a replica a member of the set of its key; members are kept in the order of their pool ids."""
    set_id = replica.set_key.set_id
    home = state.sets.get(set_id)
    if home is None:
        waiting = Waitlist(replica.plan.queue_order, state.quotas.weight_of)
        home = state.sets[set_id] = ReplicaSet(replica.set_key, set_id, waiting=waiting)
    replica.set_id = set_id
    home.members = sorted([*home.members, replica], key=lambda member: member.pool_id)
    if replica.role in TRAFFIC:
        _route(state, replica, home)
    touch(state, replica)


def _route(state: State, replica: Replica, home: ReplicaSet) -> None:
    for ref in replica.plan.model_refs:
        known = state.routes.get((replica.plan.engine, ref), ())
        if home not in known:
            state.routes[replica.plan.engine, ref] = (*known, home)


def reroute(state: State) -> None:
    """Let every alias lead to the sets of current revisions and canaries, and to no others."""
    state.routes.clear()
    for replica in state.replicas.values():
        if replica.role in TRAFFIC:
            _route(state, replica, state.sets[replica.set_id])
    for lease in state.leases.values():
        _detour(state, lease)


def _detour(state: State, lease: Lease) -> None:
    """While a lease lasts, the pool that it names serves in place of those that give way. A digest means one model."""
    pool = state.pools.get(lease.note.drain_to or "")
    if pool is None:
        return
    target = state.replicas[pool.current]
    for key in lease.pools or ():
        plan = state.replicas[key].plan if key in state.replicas else None
        if plan is None or plan.engine != target.plan.engine:
            continue
        for ref in plan.model_refs:
            known = state.routes.get((plan.engine, ref), ())
            home = state.sets[target.set_id]
            if not ref.startswith("sha256:") and known and home not in known:
                state.routes[plan.engine, ref] = (*known, home)


def touch(state: State, replica: Replica) -> None:
    """Something about a replica changed that decides what its set can do: count again, and look for moves."""
    state.sets[replica.set_id].recount()
    state.dirty.add(replica.set_id)


def note_load(state: State, replica: Replica) -> None:
    """A slot of a replica was given back: its place by load changes, and its set may have a move."""
    state.sets[replica.set_id].by_load.note(replica)
    state.dirty.add(replica.set_id)


def move_waiting(state: State, source: ReplicaSet, target: ReplicaSet) -> None:
    """Move every waiting task of one set to another, in order; those whose record is being written too."""
    move_each(state, source, lambda _: target)


def move_each(state: State, source: ReplicaSet, target_of: Callable[[Task], ReplicaSet]) -> None:
    """Move every waiting task of a set where it is to go, in order; those whose record is being written too.

    What lost its worker stays before all others, and the rest goes to the end. Where all stay, nothing changes.
    """
    for job_id in state.accept_tickets:
        task = state.tasks[job_id]
        if task.set_id == source.set_id:
            _move_reserved(task, source, target_of(task))
    goals = {task.job_id: target_of(task) for task in source.waiting}
    if all(goal is source for goal in goals.values()):
        return
    returned, moving = source.waiting.returned(), list(source.waiting)
    source.waiting = source.waiting.emptied()
    for task in moving:
        task.set_id, task.set_kind = goals[task.job_id].set_id, goals[task.job_id].kind
    for task in reversed(returned):
        goals[task.job_id].waiting.push_front(task)
    at_front = {task.job_id for task in returned}
    for task in moving:
        if task.job_id not in at_front:
            goals[task.job_id].waiting.push(task)
    state.dirty |= {source.set_id, *(goal.set_id for goal in goals.values())}


def _move_reserved(task: Task, source: ReplicaSet, target: ReplicaSet) -> None:
    source.release(task)
    target.reserve(task)
    task.set_id, task.set_kind = target.set_id, target.kind
