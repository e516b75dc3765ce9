"""Plans and tasks with sensible values, and a stage on which one conductor plays: a clock, events in, effects kept."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.conductor import Conductor
from supervisor.core.plan import ClassBounds, HostPlan, PoolPlan
from supervisor.core.refusals import Refused
from supervisor.core.replicas import Replica, ReplicaSet
from supervisor.core.tasks import Accepting, Ended, Ending, Outcome, Task
from supervisor.wire.codes import Determinism, Engine, FinishReason, FullPolicy, Priority, Workload

T = TypeVar("T")
DIGEST = "sha256:" + "a" * 64
GPU0 = ev.DeviceSeen("GPU-0", 0, "H100", 81_920)
GPU1 = ev.DeviceSeen("GPU-1", 1, "H100", 81_920)
BOTH = ev.DevicesSeen((GPU0, GPU1))
NONE = ev.DevicesSeen(())
VERSION = "b100"
CTX = 4096


def make_plan(
    pool_id: str = "p0", *, interactive: int | None = None, batch: int | None = None, **given: Any
) -> PoolPlan:
    """A pool with one slot on the first GPU; `interactive` and `batch` are the capacities of the classes."""
    capacity = given.get("queue_capacity", 100)
    values: dict[str, Any] = {
        "pool_id": pool_id,
        "engine": Engine.LLAMACPP,
        "model_ref": "m",
        "model_refs": frozenset({"m"}),
        "model_digest": DIGEST,
        "quant": None,
        "ctx": CTX,
        "slots": 1,
        "tensor_split": None,
        "sampler_profile_version": "v1",
        "determinism": Determinism.STRICT,
        "is_batch_invariant": False,
        "workloads": frozenset({Workload.COMPLETION}),
        "devices": (0,),
        "queue_capacity": capacity,
        "queue_bytes_max": 1_000_000,
        "full_policy": FullPolicy.REJECT,
        "classes": {
            Priority.INTERACTIVE: ClassBounds(capacity if interactive is None else interactive),
            Priority.BATCH: ClassBounds(capacity if batch is None else batch),
        },
        "wall_ms": 60_000,
        "idle_ms": 5_000,
        "first_token_ms": None,
        "disconnect_grace_ms": 5_000,
        "load_timeout_ms": 60_000,
    }
    return PoolPlan(**{**values, **given})


def make_task(name: str, *, batch: bool = False, strict: bool = True, **given: Any) -> Task:
    """A strict interactive task with a long deadline; `name` is its job id and its task id."""
    values: dict[str, Any] = {
        "job_id": name,
        "tenant": "tenant",
        "task_id": name,
        "engine": Engine.LLAMACPP,
        "model_ref": "m",
        "workload": Workload.COMPLETION,
        "sampler_profile_version": None,
        "ctx": 2048,
        "priority": Priority.BATCH if batch else Priority.INTERACTIVE,
        "determinism": Determinism.STRICT if strict else Determinism.BEST_EFFORT,
        "max_tokens": 64,
        "expected_tokens": 64,
        "prompt_bytes": 100,
        "size_bytes": 500,
        "body": b"{}",
        "digest": b"digest",
        "admitted_ms": 0.0,
        "deadline_at_ms": 1e9,
        "phase": Accepting(),
    }
    return Task(**{**values, **given})


@dataclass
class Stage:
    """One conductor. `give` hands in one event at `now`; `pass_ms` lets time pass and fires what is due, on time."""

    core: Conductor
    now: float = 0.0
    done: list[ef.Effect] = field(default_factory=list)

    def give(self, event: ev.Event) -> list[ef.Effect]:
        effects = self.core.handle(event, self.now)
        self.done += effects
        return effects

    def pass_ms(self, ms: float) -> list[ef.Effect]:
        until, effects = self.now + ms, list[ef.Effect]()
        while (due := self.core.next_due_ms()) is not None and due <= until:
            self.now = max(self.now, due)
            effects += self.give(ev.TimePassed())
        self.now = until
        return effects

    def replica(self, pool_id: str = "p0") -> Replica:
        return self.core.state.replicas[pool_id]

    def home(self, pool_id: str = "p0") -> ReplicaSet:
        return self.core.state.sets[self.replica(pool_id).set_id]

    def task(self, name: str) -> Task:
        return self.core.state.tasks[name]

    # Workers

    def load(self, pool_id: str = "p0", *, beside: str = "") -> int:
        """Let a worker come as far as its engine runs; gives its incarnation."""
        inc = self.replica(pool_id).incarnation
        self.give(ev.ModelVerified(pool_id, inc, DIGEST, beside))
        self.measure(pool_id)
        self.give(ev.EngineSpawned(pool_id, inc, 100 + inc, 9000 + inc))
        return inc

    def measure(self, pool_id: str = "p0", *, free_mib: int = 80_000, need_mib: int = 8_000) -> list[ef.Effect]:
        """Memory is measured, and by default there is plenty of it."""
        replica = self.replica(pool_id)
        rooms = tuple(ev.DeviceRoom(uuid, 81_920, free_mib, need_mib) for uuid in replica.devices)
        return self.give(ev.RoomMeasured(pool_id, replica.incarnation, rooms, 64_000, 1_000))

    def serve(
        self,
        pool_id: str = "p0",
        *,
        version: str = VERSION,
        slots: int | None = None,
        ctx: int = CTX,
        beside: str = "",
    ) -> int:
        """Let a worker that is verifying its model become Ready; gives its incarnation."""
        inc = self.load(pool_id, beside=beside)
        self.give(ev.EngineHealthy(pool_id, inc))
        slots = self.replica(pool_id).plan.slots if slots is None else slots
        self.give(ev.EngineInspected(pool_id, inc, version, slots, ctx))
        self.give(ev.EngineTested(pool_id, inc))
        return inc

    def lose(self, pool_id: str = "p0") -> None:
        """The engine dies, its runs are aborted without another token, and what it left is swept."""
        inc = self.replica(pool_id).incarnation
        self.answer_aborts(self.give(ev.EngineExited(pool_id, inc, "crash", "it crashed")))
        self.give(ev.EngineStopped(pool_id, inc))

    def answer_aborts(self, effects: list[ef.Effect], emitted: int = 0) -> list[ef.Effect]:
        out = []
        for effect in only(effects, ef.AbortRun):
            out += self.give(ev.RunAborted(effect.run_id, None, emitted, emitted, 5.0))
        return out

    # Tasks

    def submit(self, *tasks: Task) -> list[ef.Effect]:
        """Submit tasks and let their records reach the disk, one by one; all must be admitted."""
        out = []
        for task in tasks:
            first = self.give(ev.TaskSubmitted(task))
            assert any(isinstance(effect, ef.CommitAccept) for effect in first), first
            out += first + self.give(ev.AcceptsCommitted((task.job_id,)))
        return out

    def refusal(self, task: Task) -> Refused:
        """Submit a task that must be refused at once."""
        (answer,) = only(self.give(ev.TaskSubmitted(task)), ef.AnswerRefused)
        assert answer.ticket == task.job_id
        return answer.refused

    def run_of(self, name: str) -> int:
        return next(run_id for run_id, job_id in self.core.state.runs.items() if job_id == name)

    def finish(self, name: str, tokens: int = 3, *, reason: FinishReason = FinishReason.STOP) -> list[ef.Effect]:
        """The engine completes a running task."""
        return self.give(ev.RunFinished(self.run_of(name), reason, 7, tokens, tokens, 5.0))

    def settle(self) -> None:
        """Every end that was decided so far is on disk."""
        ending = [name for name, task in self.core.state.tasks.items() if isinstance(task.phase, Ending)]
        self.give(ev.FinishesCommitted(tuple(ending), tuple(10 for _ in ending)))

    def outcome(self, name: str) -> Outcome:
        phase = self.task(name).phase
        assert isinstance(phase, Ending | Ended), phase
        return phase.outcome


def only(effects: list[ef.Effect], kind: type[T]) -> list[T]:
    """The effects of one kind, in order."""
    return [effect for effect in effects if isinstance(effect, kind)]


def started(effects: list[ef.Effect]) -> list[tuple[str, str]]:
    """(job, pool) of what was dispatched, in order."""
    return [(effect.task.job_id, effect.pool_id) for effect in only(effects, ef.StartRun)]


def error_of(outcome: Outcome) -> Refused:
    assert outcome.error is not None, outcome
    return outcome.error


def make_stage(*plans: PoolPlan, host: HostPlan | None = None) -> Stage:
    """A daemon that has just started and knows nothing of its GPUs."""
    return Stage(Conductor(plans or (make_plan(),), host))


def ready_stage(*plans: PoolPlan, host: HostPlan | None = None, slots: int | None = None) -> Stage:
    """A daemon whose workers are all Ready."""
    stage = make_stage(*plans, host=host)
    stage.give(BOTH)
    for pool_id in stage.core.state.replicas:
        stage.serve(pool_id, slots=slots)
    stage.done.clear()
    return stage
