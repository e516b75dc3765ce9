"""The conductor under any order of events that an honest runtime can give, late and repeated reports included."""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from supervisor.core import events as ev
from supervisor.core.lifecycle import Phase
from supervisor.core.plan import ClassBounds, HostPlan, TenantPlan
from supervisor.core.replicas import Wanted
from supervisor.core.tasks import Ended, Task
from supervisor.wire.codes import FullPolicy, Priority, QueueOrder
from tests.core.builders import BOTH, GPU1, NONE, make_plan, make_task
from tests.stateful.honest_runtime import HonestRuntime

INVENTORIES: tuple[ev.Event, ...] = (BOTH, BOTH, NONE, ev.DevicesSeen((GPU1,)), ev.DevicesUnknown("no answer"))
ACME = TenantPlan(concurrent_jobs=4, waiting_tasks=2, memory_bytes=600_000, weight=3)
HOST = HostPlan(finished_retention_ms=5_000, finished_bytes_max=300, finished_ids_min=5, tenants={"acme": ACME})
ROUNDS_MAX = 3_000
ENDS = ("end", "end", "none", "lost", "stall", "error", "refused", "busy")
TROUBLES = ("crash", "crash", "failed step", "full disk", "devices", "drain", "drain", "halt")


def live(machine: "ConductorMachine") -> bool:
    return not machine.runtime.is_halted


class ConductorMachine(RuleBasedStateMachine):
    """Rules let one open thing happen each; the runtime checks all promises after every event."""

    runtime: HonestRuntime

    @initialize(
        slots=st.lists(st.sampled_from((1, 2, 4)), min_size=1, max_size=3),
        policy=st.sampled_from(FullPolicy),
        capacity=st.integers(1, 5),
        ready=st.integers(0, 3),
        order=st.sampled_from(QueueOrder),
        rps=st.sampled_from((None, None, 2.0)),
    )
    def begin(
        self, slots: list[int], policy: FullPolicy, capacity: int, ready: int, order: QueueOrder, rps: float | None
    ) -> None:
        bounds = {
            Priority.INTERACTIVE: ClassBounds(capacity, rps, 3.0),
            Priority.BATCH: ClassBounds(max(capacity - 1, 1), rps, 3.0),
        }
        plans = tuple(
            make_plan(
                f"p{number}",
                slots=count,
                devices=(number % 2,),
                full_policy=policy,
                queue_capacity=capacity,
                classes=bounds,
                queue_order=order,
                kv_bytes_per_token=1_000,
                wall_ms=20_000,
                can_pin_slots=True,
            )
            for number, count in enumerate(slots)
        )
        self.runtime = HonestRuntime(plans, HOST)
        self.names = 0
        self.runtime.give(BOTH)
        for plan in plans[:ready]:
            for _ in range(5):
                self.runtime.pass_step(plan.pool_id, "b1")

    def pool(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from([plan.pool_id for plan in self.runtime.plans]))

    # Callers

    @precondition(live)
    @rule(data=st.data(), count=st.integers(1, 4), is_flushed=st.booleans())
    def submit(self, data: st.DataObject, count: int, is_flushed: bool) -> None:
        for _ in range(count):
            self.runtime.give(ev.TaskSubmitted(self.draw_task(data)))
        if is_flushed:
            self.runtime.flush()

    def draw_task(self, data: st.DataObject) -> Task:
        self.names += 1
        is_repeat = data.draw(st.integers(0, 9)) == 9
        is_strict = data.draw(st.booleans())
        number = max(self.names - 3, 1) if is_repeat else self.names
        return make_task(
            f"j{self.names}",
            task_id=f"t{number}",
            tenant="tenant" if number % 2 else "acme",
            batch=data.draw(st.booleans()),
            strict=is_strict,
            prompt_bytes=data.draw(st.sampled_from((10, 10, 10, 4_000))),
            session=data.draw(st.sampled_from((None, b"a", b"b"))) if not is_strict else None,
            admitted_ms=self.runtime.now,
            deadline_at_ms=self.runtime.now + data.draw(st.sampled_from((1e7, 30_000.0, 500.0))),
        )

    @precondition(lambda self: live(self) and self.runtime.core.state.tasks)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(list(self.runtime.core.state.tasks)))
        self.names += 1
        self.runtime.give(ev.CancelRequested(f"c{self.names}", job_id))

    @precondition(lambda self: live(self) and self.runtime.live)
    @rule(data=st.data(), comes=st.booleans())
    def readers(self, data: st.DataObject, comes: bool) -> None:
        job_id = data.draw(st.sampled_from([run.effect.task.job_id for run in self.runtime.live.values()]))
        self.runtime.give(ev.ReadersCame(job_id) if comes else ev.ReadersLeft(job_id))

    # What was begun goes on

    @precondition(lambda self: live(self) and self.runtime.live)
    @rule(data=st.data(), tokens=st.integers(0, 5), end=st.sampled_from(ENDS))
    def run(self, data: st.DataObject, tokens: int, end: str) -> None:
        run_id = data.draw(st.sampled_from(list(self.runtime.live)))
        self.runtime.live[run_id].tokens += tokens
        match end:
            case "end":
                self.runtime.finish_run(run_id)
            case "stall":
                self.runtime.report(ev.RunStalled(run_id, "idle"))
            case "error" | "refused" | "lost" | "busy":
                self.runtime.fail_run(run_id, end=end)

    @precondition(lambda self: live(self) and self.runtime.live)
    @rule(data=st.data(), count=st.integers(2, 8))
    def rot(self, data: st.DataObject, count: int) -> None:
        """Several runs of one worker fail one after the other, as far as it is given any."""
        pool_id = data.draw(st.sampled_from([run.effect.pool_id for run in self.runtime.live.values()]))
        for _ in range(count):
            own = [run_id for run_id, run in self.runtime.live.items() if run.effect.pool_id == pool_id]
            if own:
                self.runtime.fail_run(own[0], end="error")
            while self.runtime.confirms:
                self.runtime.confirm(0, is_idle=True)

    @precondition(lambda self: live(self) and (self.runtime.accepts or self.runtime.finishes or self.runtime.counting))
    @rule(is_known=st.booleans())
    def flush(self, is_known: bool) -> None:
        while self.runtime.counting:
            self.runtime.count(is_known=is_known)
        self.runtime.flush()

    @precondition(lambda self: live(self) and (self.runtime.steps or self.runtime.stops))
    @rule(data=st.data(), count=st.integers(1, 6), version=st.sampled_from(("b1", "b1", "b2")))
    def go_on(self, data: st.DataObject, count: int, version: str) -> None:
        """A worker comes some steps nearer to Ready, from wherever it is."""
        pool_id = self.pool(data)
        for _ in range(count):
            if pool_id in self.runtime.stops:
                self.runtime.end_stop(pool_id)
            elif pool_id in self.runtime.steps:
                self.runtime.pass_step(pool_id, version)

    @precondition(lambda self: live(self) and self.runtime.confirms)
    @rule(data=st.data(), is_idle=st.booleans())
    def confirm(self, data: st.DataObject, is_idle: bool) -> None:
        self.runtime.confirm(data.draw(st.integers(0, len(self.runtime.confirms) - 1)), is_idle=is_idle)

    @precondition(live)
    @rule(ms=st.sampled_from((10.0, 1_500.0, 1_500.0, 31_000.0, 700_000.0)))
    def wait(self, ms: float) -> None:
        self.runtime.pass_ms(ms)

    # What goes wrong, and what operators do

    @precondition(live)
    @rule(data=st.data(), what=st.sampled_from(TROUBLES))
    def disturb(self, data: st.DataObject, what: str) -> None:
        pool_id, runtime = self.pool(data), self.runtime
        match what:
            case "crash" if runtime.core.state.replicas[pool_id].phase in (Phase.LOADING, Phase.TESTING, Phase.READY):
                runtime.die(pool_id)
            case "failed step" if pool_id in runtime.steps:
                runtime.fail_step(pool_id)
            case "full disk":
                runtime.fail_flush()
            case "devices":
                runtime.give(data.draw(st.sampled_from(INVENTORIES)))
            case "drain":
                runtime.give(ev.DrainRequested(pool_id, data.draw(st.sampled_from((0.0, 2_000.0, 60_000.0)))))
            case "halt" if self.names > 12:
                runtime.give(ev.HaltRequested(data.draw(st.sampled_from((0.0, 5_000.0)))))
            case _:
                pass

    @precondition(live)
    @rule(data=st.data())
    def mend(self, data: st.DataObject) -> None:
        self.runtime.give(ev.JournalChanged(is_writable=True, cause=None))
        self.runtime.give(BOTH)
        self.runtime.give(ev.ResumeRequested(self.pool(data)))

    @precondition(lambda self: live(self) and self.runtime.reports)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """A report that was given before comes again: nothing breaks."""
        event = data.draw(st.sampled_from(self.runtime.reports))
        if not isinstance(event, ev.RunStalled):  # a live run may stall more than once
            self.runtime.give(event)

    @precondition(lambda self: self.runtime.is_halted)
    @rule()
    def rest(self) -> None:
        """After a complete halt nothing happens any more."""

    # At the end, let everything come to rest

    def teardown(self) -> None:
        if not hasattr(self, "runtime") or self.runtime.is_broken:
            return  # what broke is told, and not what follows from it
        self._mend()
        for _ in range(ROUNDS_MAX):
            if self.runtime.is_halted or self._is_quiet():
                break
            self._settle()
        self._check()

    def _mend(self) -> None:
        if self.runtime.is_halted:
            return
        self.runtime.give(ev.JournalChanged(is_writable=True, cause=None))
        self.runtime.give(BOTH)
        for plan in self.runtime.plans:
            self.runtime.give(ev.ResumeRequested(plan.pool_id))

    def _settle(self) -> None:
        runtime = self.runtime
        runtime.flush()
        for pool_id in list(runtime.steps):
            if pool_id in runtime.steps:  # one that comes up may end another
                runtime.pass_step(pool_id, "b1")
        for pool_id in list(runtime.stops):
            runtime.end_stop(pool_id)
        for run_id in list(runtime.live):
            if run_id in runtime.live:
                runtime.finish_run(run_id)
        while runtime.confirms:
            runtime.confirm(0, is_idle=True)
        while runtime.counting:
            runtime.count(is_known=True)
        runtime.pass_ms(1_000)

    def _is_quiet(self) -> bool:
        state, runtime = self.runtime.core.state, self.runtime
        is_idle = not (runtime.accepts or runtime.finishes or runtime.live or runtime.confirms or runtime.counting)
        is_ready = all(replica.phase is Phase.READY for replica in state.replicas.values())
        return is_idle and is_ready and all(isinstance(task.phase, Ended) for task in state.tasks.values())

    def _check(self) -> None:
        state = self.runtime.core.state
        if self.runtime.is_halted:
            assert all(
                replica.wanted is Wanted.HALT and replica.phase is Phase.OFF for replica in state.replicas.values()
            )
            return
        assert self._is_quiet(), "something never comes to rest"
        assert self.runtime.ledger.unended() == []
        assert not any(replica.load for replica in state.replicas.values())
        self.runtime.oracle.check_all_answered()


TestConductor = ConductorMachine.TestCase
TestConductor.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
