"""Row 9: what the pure core costs for one task, from accept over dispatch to its end, without any I/O.

The driver answers each effect at once with the event that it would end in, one record a commit: the dearest case.
"""

import gc
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from bench.effort import Effort
from bench.rows import Bound, Figures, Row, judge
from supervisor.core import effects as fx
from supervisor.core import events as ev
from supervisor.core.conductor import Conductor
from supervisor.core.plan import ClassBounds, PoolPlan
from supervisor.core.tasks import Accepting, Task
from supervisor.wire.codes import Determinism, Engine, FinishReason, FullPolicy, Priority, Workload

REPLICAS = (1, 64)
WAITING = (0, 100_000)
SLOTS = 4
CTX = 8192
CAPACITY = 1_000_000
DAY_MS = 86_400_000
FLAT_RATIO_MAX = 2.0
"""How much dearer the dearest case may be than the cheapest and still be called flat."""

_DIGEST = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True)
class Case:
    """One measured combination."""

    replicas: int
    waiting: int
    us: float


class Driver:
    """A world in which everything works at once, and a running task ends when it is told to."""

    def __init__(self, replicas: int) -> None:
        self.conductor = Conductor(tuple(_plan(index) for index in range(replicas)))
        self.running: deque[int] = deque()
        self.started = 0
        self.ended = 0
        self._now_ms = 0.0
        seen = (ev.DeviceSeen(f"GPU-{index}", index, "bench", 8192) for index in range(replicas))
        self.give(ev.DevicesSeen(tuple(seen)))

    def give(self, event: ev.Event) -> None:
        """Handle an event and all that follow from its effects."""
        pending = deque((event,))
        while pending:
            for effect in self.conductor.handle(pending.popleft(), self._now_ms):
                pending.extend(self._answers(effect))

    def submit(self, number: int) -> None:
        """A task arrives and is on disk at once. Time stands still: filling a queue must not look like slow service."""
        self.give(ev.TaskSubmitted(_task(number, self._now_ms)))

    def finish_one(self) -> None:
        """The task that has run longest ends."""
        self._now_ms += 1
        due_ms = self.conductor.next_due_ms()
        if due_ms is not None and due_ms <= self._now_ms:
            self.give(ev.TimePassed())
        self.give(ev.RunFinished(self.running.popleft(), FinishReason.LENGTH, 8, 64, 64, 100.0))

    def _answers(self, effect: fx.Effect) -> tuple[ev.Event, ...]:
        match effect:
            case fx.CommitAccept(task=task):
                return (ev.AcceptsCommitted((task.job_id,)),)
            case fx.StartRun(run_id=run_id):
                self.running.append(run_id)
                self.started += 1
            case fx.CommitFinish(task=task):
                self.ended += 1
                return (ev.FinishesCommitted((task.job_id,), (512,)),)
            case fx.AnswerRefused() | fx.CountTokens() | fx.StopEngine():
                raise AssertionError(effect)
        return _preload_answers(effect)


def _preload_answers(effect: fx.Effect) -> tuple[ev.Event, ...]:
    match effect:
        case fx.VerifyModel(pool_id=pool_id, incarnation=incarnation):
            return (ev.ModelVerified(pool_id, incarnation, _DIGEST),)
        case fx.SpawnEngine(pool_id=pool_id, incarnation=incarnation):
            return (ev.EngineSpawned(pool_id, incarnation, 1, 1),)
        case fx.AwaitHealth(pool_id=pool_id, incarnation=incarnation):
            return (ev.EngineHealthy(pool_id, incarnation),)
        case fx.InspectEngine(pool_id=pool_id, incarnation=incarnation):
            return (ev.EngineInspected(pool_id, incarnation, "b1", SLOTS, CTX),)
        case fx.RunSelfTest(pool_id=pool_id, incarnation=incarnation):
            return (ev.EngineTested(pool_id, incarnation),)
    return ()


def _plan(index: int) -> PoolPlan:
    return PoolPlan(
        pool_id=f"bench-{index:02}",
        engine=Engine.LLAMACPP,
        model_ref="bench",
        model_refs=frozenset({"bench", _DIGEST}),
        model_digest=_DIGEST,
        quant=None,
        ctx=CTX,
        slots=SLOTS,
        tensor_split=None,
        sampler_profile_version="v1",
        determinism=Determinism.BEST_EFFORT,
        is_batch_invariant=False,
        workloads=frozenset({Workload.COMPLETION}),
        devices=(index,),
        queue_capacity=CAPACITY,
        queue_bytes_max=1 << 40,
        full_policy=FullPolicy.REJECT,
        classes={priority: ClassBounds(CAPACITY) for priority in Priority},
        wall_ms=DAY_MS,
        idle_ms=DAY_MS,
        first_token_ms=None,
        disconnect_grace_ms=-1,
        load_timeout_ms=600_000,
    )


def _task(number: int, now_ms: float) -> Task:
    """Every ninth one is batch, so that both classes and the floor between them are at work."""
    name = f"{number:032x}"
    return Task(
        job_id=f"job-{name}",
        tenant="default",
        task_id=name,
        engine=Engine.LLAMACPP,
        model_ref="bench",
        workload=Workload.COMPLETION,
        sampler_profile_version="v1",
        ctx=CTX,
        priority=Priority.BATCH if number % 9 == 0 else Priority.INTERACTIVE,
        determinism=Determinism.BEST_EFFORT,
        max_tokens=64,
        expected_tokens=64,
        prompt_bytes=64,
        size_bytes=512,
        body=b"",
        digest=number.to_bytes(32),
        admitted_ms=now_ms,
        deadline_at_ms=now_ms + DAY_MS,
        phase=Accepting(),
    )


def measure_case(replicas: int, waiting: int, tasks: int) -> Case:
    """Mean microseconds of accept + dispatch + finish, with all slots busy and `waiting` tasks behind them.

    With none waiting, all but one slot are busy, so that each task is dispatched as it comes.
    """
    driver = Driver(replicas)
    held = replicas * SLOTS - 1 if waiting == 0 else replicas * SLOTS + waiting
    for number in range(held):
        driver.submit(number)
    before = driver.started, driver.ended
    gc.collect()
    gc.freeze()
    began = time.perf_counter()
    for number in range(held, held + tasks):
        driver.submit(number)
        driver.finish_one()
    took_s = time.perf_counter() - began
    gc.unfreeze()
    if (driver.started - before[0], driver.ended - before[1]) != (tasks, tasks):
        raise AssertionError("the core did not dispatch and end as many tasks as came")
    return Case(replicas, waiting, took_s * 1e6 / tasks)


def measure_core(effort: Effort, say: Callable[[str], None]) -> Row:
    """All combinations, and whether the cost is flat."""
    say("the core alone")
    cases = [measure_case(replicas, waiting, effort.core_tasks) for replicas in REPLICAS for waiting in WAITING]
    figures: Figures = {f"replicas_{case.replicas}_waiting_{case.waiting}_us": case.us for case in cases}
    slowest, fastest = max(case.us for case in cases), min(case.us for case in cases)
    text = "; ".join(f"{case.us:.0f} us ({case.replicas}, {case.waiting:,})" for case in cases)
    text += f" for (replicas, waiting); grows {slowest / fastest:.1f} x"
    flat = Bound(slowest / fastest, FLAT_RATIO_MAX, FLAT_RATIO_MAX)
    verdict = judge(Bound(slowest, 100, 40), flat)
    return Row(9, "core: accept + dispatch + finish", "<= 100 us, flat", "<= 40 us, flat", text, verdict, figures)
