"""Replicas (one pool = one worker process) and the replica sets that they form (ORCH-3007, ORCH-3046).

A set is keyed by everything that decides the bytes of a stream. The engine's version is part of the key and known only
once a worker answered, so a replica starts in a *forming* set (version None) and joins its real one at Inspecting.
Waiting tasks belong to a set, never to a replica: they are bound late, when a slot is free.
"""

from enum import StrEnum
from hashlib import sha256

from msgspec import Struct, field, structs

from supervisor.core.breaker import Breaker, Trust
from supervisor.core.forecast import Forecast, InService
from supervisor.core.generating import Generating
from supervisor.core.lane import Ahead
from supervisor.core.lifecycle import Phase
from supervisor.core.load_order import LoadOrder
from supervisor.core.plan import PoolPlan
from supervisor.core.promises import Promises
from supervisor.core.restart import History
from supervisor.core.revisions import TRAFFIC, Role
from supervisor.core.slots import SlotTable
from supervisor.core.tasks import Task
from supervisor.core.waitlist import Waitlist
from supervisor.wire.codes import Priority


class Wanted(StrEnum):
    """What the operator wants of a pool."""

    SERVE = "serve"
    DRAIN = "drain"
    HALT = "halt"


class StepState(StrEnum):
    """How far one step on the way to Ready has come."""

    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"


class Step(Struct):
    """One step of the current or last attempt (ORCH-3049). Times are monotonic ms."""

    name: str
    state: StepState
    began_ms: float
    took_ms: float | None = None
    detail: str | None = None


class Stopping(Struct, frozen=True):
    """Where a stop leads, and why it was begun."""

    after: Phase
    cause: str


class FoundEngine(Struct, frozen=True):
    """An engine of an earlier daemon, proved to be its own and to run what this configuration would launch."""

    pool_id: str
    pid: int
    port: int
    devices: tuple[str, ...]


class SetKey(Struct, frozen=True):
    """What must be equal for two replicas to give the same bytes.

    `variant` sets a worker apart that is equal and must not take the tasks of the others: it is not its pool's current
    revision. Tasks are of one kind whether a variant runs them or not.
    """

    engine: str
    model_digest: str
    quant: str | None
    ctx: int | None
    sampler_profile_version: str
    engine_version: str | None
    variant: str | None = None
    beside_digest: str = ""
    """Of the files that the engine loads beside its model; known together with its version."""

    @property
    def set_id(self) -> str:
        """A short, stable name."""
        text = "\x1f".join(
            str(part)
            for part in (
                self.engine,
                self.model_digest,
                self.quant,
                self.ctx,
                self.sampler_profile_version,
                self.engine_version,
                *([] if self.variant is None else [self.variant]),
                *([f"beside {self.beside_digest}"] if self.beside_digest else []),
            )
        )
        return "rs-" + sha256(text.encode()).hexdigest()[:12]

    @property
    def forming(self) -> "SetKey":
        """The key of the set in which members wait until their version is known."""
        return structs.replace(self, engine_version=None, beside_digest="")

    @property
    def kind(self) -> str:
        """The name of what is equal for all versions of the engine and all variants."""
        return structs.replace(self, engine_version=None, variant=None, beside_digest="").set_id


class Replica(Struct, kw_only=True):
    """One pool's worker: what is wanted, what was observed, and what runs on it.

    `runs` maps run ids to job ids. `freeing` holds runs that were aborted and whose slot was not yet seen idle; those
    of them that lost their connection are `doubts`: until the worker was seen alive again, it takes no task.
    `exclusive_run` is a strict task that has a worker with several slots to itself. `slot_table` knows the engine's
    slots by number, `evictions` counts sessions whose KV was given up here, `vram_free_mib` is that of its tightest
    device. `found` is an engine of an earlier daemon that may be adopted, `leased_to` the
    lease that its GPUs go to.
    `role` says what it is to its pool. `is_making_way`: it gives its devices to another revision and may come back;
    `is_promised`: what asks for it may wait meanwhile, for one of both will serve. `is_short`: it waits for memory;
    `is_too_big`: there is less in all than it needs. `retire_by_ms`: what is left on it ends then. `meter` names those
    with which it counts the rates of clients.
    """

    plan: PoolPlan
    set_key: SetKey
    meter: str
    set_id: str = ""
    wanted: Wanted = Wanted.SERVE
    phase: Phase = Phase.IDLE
    since_ms: float = 0.0
    cause: str | None = None
    due_ms: float | None = None
    stopping: Stopping | None = None
    incarnation: int = 0
    devices: tuple[str, ...] = ()
    pid: int | None = None
    port: int | None = None
    engine_version: str | None = None
    beside_digest: str = ""
    """Of the files beside its model, as they were verified for this incarnation."""
    slots: int = 0
    ctx_per_slot: int = 0
    history: History = field(default_factory=History)
    restarts: int = 0
    steps: list[Step] = field(default_factory=list)
    runs: dict[int, str] = field(default_factory=dict)
    freeing: set[int] = field(default_factory=set)
    doubts: set[int] = field(default_factory=set)
    slot_table: SlotTable = field(default_factory=SlotTable)
    evictions: int = 0
    vram_free_mib: int = 0
    exclusive_run: int | None = None
    drain_deadline_ms: float | None = None
    found: FoundEngine | None = None
    leased_to: str | None = None
    breaker: Breaker = field(default_factory=Breaker)
    generating: Generating = field(default_factory=Generating)
    oom_events: int = 0
    """How often an engine of it ended for want of memory."""
    role: Role = Role.CURRENT
    is_making_way: bool = False
    is_promised: bool = False
    is_short: bool = False
    is_too_big: bool = False
    claims: tuple[tuple[str, int], ...] = ()
    """What it was promised on each device when it was let start, by UUID, in MiB."""
    estimates: tuple[int, ...] = ()
    """What it was thought to need on each device of the mask when it was let start, before all that was learned."""
    wanted_room: tuple[tuple[str, int], ...] = ()
    """While it waits for memory of a device: free MiB of each device with which it could start."""
    wanted_host_mib: int = 0
    """While it waits for memory of the host: what must be free there."""
    held: tuple[int, ...] = ()
    """The most that its process was seen to hold on each device of the mask, in MiB."""
    recipe: str = ""
    host_need_mib: int = 0
    unfit: str | None = None
    """Why it can never work on these GPUs as configured."""
    retire_by_ms: float | None = None

    @property
    def pool_id(self) -> str:
        """The pool's name."""
        return self.plan.pool_id

    @property
    def replica_id(self) -> str:
        """The worker's name; one pool has one, a new process is a new incarnation of it."""
        return f"{self.plan.pool_id}/{self.incarnation}"

    @property
    def load(self) -> int:
        """Slots that cannot take a task."""
        return len(self.runs) + len(self.freeing) + (self.generating.probe is not None)

    @property
    def can_run(self) -> bool:
        """Whether tasks of its set may be dispatched to it (ORCH-3010)."""
        is_wanted = self.wanted is Wanted.SERVE and self.leased_to is None and not self.is_making_way
        return is_wanted and self.phase is Phase.READY and self.role is not Role.CANDIDATE

    @property
    def is_serving(self) -> bool:
        """Whether it takes the traffic of its alias; a standby or a retiring one only ends what it has."""
        return self.role in TRAFFIC and self.can_run

    @property
    def is_ejected(self) -> bool:
        """Whether it serves and its breaker keeps every task from it."""
        return self.is_serving and self.breaker.is_ejecting

    @property
    def slots_trusted(self) -> int:
        """Slots that can be counted on: none of an ejected worker, one of a worker on probation."""
        if self.breaker.is_ejecting:
            return 0
        return self.slots if self.breaker.trust is Trust.CLOSED else min(self.slots, 1)

    @property
    def can_come_back(self) -> bool:
        """Whether waiting for it makes sense: it has its devices and is not given up."""
        is_given_up = self.phase in (Phase.UNPLACED, Phase.BROKEN, Phase.OFF)
        return not is_given_up and self.wanted is Wanted.SERVE and self.leased_to is None


class ReplicaSet(Struct):
    """The replicas of one key, and the tasks that wait for one of their slots.

    `kind` names the set in which its members form: it is the same for all versions of their engine, and in the next
    daemon. `reserved` is room for tasks whose record is being written. What the members offer together (`serving`,
    slots, bounds in tasks and bytes) is kept beside them, so that a task costs the same whether 1 or 64 replicas serve.
    """

    key: SetKey
    set_id: str
    members: list[Replica] = field(default_factory=list)
    waiting: Waitlist = field(default_factory=Waitlist)
    forecast: Forecast = field(default_factory=Forecast)
    in_service: InService = field(default_factory=InService)
    promises: Promises = field(default_factory=Promises)
    reserved: dict[Priority, int] = field(default_factory=lambda: dict.fromkeys(Priority, 0))
    reserved_tokens: dict[Priority, int] = field(default_factory=lambda: dict.fromkeys(Priority, 0))
    reserved_bytes: int = 0
    serving: list[Replica] = field(default_factory=list)
    by_load: LoadOrder[Replica] = field(default_factory=LoadOrder)
    slots_serving: int = 0
    capacity: dict[Priority, int] = field(default_factory=dict)
    capacity_total: int = 0
    bytes_max: int = 0
    ctx_per_slot: int = 0
    kind: str = ""

    def __post_init__(self) -> None:
        self.kind = self.key.kind

    def recount(self) -> None:
        """Take over what members offer; called whenever a member joins, leaves, or begins or ends to serve."""
        self.serving = [member for member in self.members if member.can_run]
        self.rank()
        self.slots_serving = sum(member.slots_trusted for member in self.serving)
        self.ctx_per_slot = min((member.ctx_per_slot for member in self.serving), default=0)
        self.capacity_total = sum(member.plan.queue_capacity for member in self.members)
        self.bytes_max = sum(member.plan.queue_bytes_max for member in self.members)
        for priority in Priority:
            self.capacity[priority] = sum(member.plan.classes[priority].capacity for member in self.members)

    def rank(self) -> None:
        """Equally loaded members go by most free VRAM, as of the last look at the devices, then by name (ORCH-3008)."""
        self.by_load.rebuild(sorted(self.serving, key=lambda member: (-member.vram_free_mib, member.pool_id)))

    def reserve(self, task: Task) -> None:
        """Keep room for a task whose record is being written."""
        self.reserved[task.priority] += 1
        self.reserved_tokens[task.priority] += task.expected_tokens
        self.reserved_bytes += task.size_bytes

    def release(self, task: Task) -> None:
        """Give that room back: the record is on disk, or will never be."""
        self.reserved[task.priority] -= 1
        self.reserved_tokens[task.priority] -= task.expected_tokens
        self.reserved_bytes -= task.size_bytes

    def occupied(self, priority: Priority) -> int:
        """Tasks of a class that wait, or will as soon as their record is on disk."""
        return self.waiting.depth(priority) + self.reserved[priority]

    @property
    def can_serve(self) -> bool:
        """Whether some member serves and is not ejected by its breaker."""
        return not all(member.breaker.is_ejecting for member in self.serving)

    @property
    def occupied_total(self) -> int:
        """Tasks of all classes that wait or will."""
        return len(self.waiting) + sum(self.reserved.values())

    def expected_tokens(self, priority: Priority) -> int:
        """Tokens expected of the tasks of a class that wait, or will as soon as their record is on disk."""
        return self.waiting.expected_tokens(priority) + self.reserved_tokens[priority]

    def ahead_in_class(self, newcomer: Task) -> Ahead:
        """What of its own class goes before a task that is admitted now, records that are being written included."""
        found, priority = self.waiting.ahead_in_class(newcomer), newcomer.priority
        return Ahead(found.tasks + self.reserved[priority], found.expected_tokens + self.reserved_tokens[priority])

    @property
    def work_total(self) -> int:
        """Tasks that wait or will, and slots that are taken. O(serving members)."""
        return self.occupied_total + sum(member.load for member in self.serving)
