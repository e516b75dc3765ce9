"""Pools that are rolled out, changed, lent and drained in any order, with tasks running all the while.

What an honest runtime may report comes between all that, late and repeated reports included. After every event the
state is sound, and in the end every accepted task has its one end, and every pool serves again.
"""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import initialize, precondition, rule
from msgspec import structs

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.intent import LeaseNote
from supervisor.core.plan import HostPlan, PoolPlan
from supervisor.core.pools import next_revision
from supervisor.core.revisions import CanaryPlan, JudgePlan, RolloutKind, RolloutPhase, name_key
from supervisor.core.tasks import Task
from supervisor.wire.codes import FullPolicy, QueueOrder
from tests.core.builders import BOTH, make_plan, make_task
from tests.stateful.honest_runtime import HonestRuntime
from tests.stateful.test_conductor import ConductorMachine, live

HOST = HostPlan(finished_retention_ms=5_000, finished_ids_min=5, keep_previous_ms=20_000, lease_devices_max=2)
NAMES = ("p0", "p1", "p2", "p3")
KEPT = "p0"
"""Never removed: there is always a pool to ask."""
JUDGES = (None, JudgePlan(min_tasks=2, promote_after_tasks=4), JudgePlan(parity_min=0.5, window_ms=30_000))
GPUS = (("GPU-0",), ("GPU-1",), ("GPU-0", "GPU-1"), ("GPU-9",))
DRAINS_MS = (0.0, 2_000.0, 30_000.0)


def plan_of(name: str, **given: Any) -> PoolPlan:
    """The first two pools are of one model, the others of another."""
    model = "m" if name in ("p0", "p1") else "n"
    number = int(name[1:].partition("+")[0])
    values: dict[str, Any] = {
        "model_ref": model,
        "model_refs": frozenset({model}),
        "model_digest": f"sha256:{model}",
        "devices": (number % 2,),
        "slots": 1 + number % 2,
        "queue_capacity": 4,
        "full_policy": FullPolicy.REJECT,
        "wall_ms": 20_000,
    }
    return make_plan(name, **{**values, **given})


class RolloutMachine(ConductorMachine):
    """All that can happen to the conductor, and besides what changes its pools."""

    @initialize(count=st.integers(2, 3), ready=st.sampled_from((3, 3, 3, 1)))
    def begin(self, count: int, ready: int) -> None:
        plans = tuple(plan_of(name) for name in ("p0", "p2", "p1")[:count])
        self.runtime = HonestRuntime(plans, HOST)
        self.names = self.tickets = 0
        self.runtime.give(BOTH)
        for plan in plans[:ready]:
            for _ in range(5):
                self.runtime.pass_step(plan.pool_id, "b1")

    def pool(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.runtime.core.state.replicas)))

    def draw_task(self, data: st.DataObject) -> Task:
        task = super().draw_task(data)
        task.model_ref = data.draw(st.sampled_from(("m", "n")))
        task.bucket = data.draw(st.sampled_from((0, 5_000, 9_999)))
        task.tenant = "tenant"
        return task

    def ticket(self) -> str:
        self.tickets += 1
        return f"asked-{self.tickets}"

    @precondition(live)
    @rule(models=st.sampled_from(("mn", "mmn", "mmmnn")), is_strict=st.booleans())
    def work(self, models: str, is_strict: bool) -> None:
        """Ordinary tasks come, and are on disk."""
        for model in models:
            self.names += 1
            task = make_task(f"j{self.names}", strict=is_strict, model_ref=model, bucket=self.names * 2_000 % 10_000)
            self.runtime.give(ev.TaskSubmitted(task))
        self.runtime.flush()

    # Revisions

    @precondition(live)
    @rule(
        data=st.data(),
        name=st.sampled_from(NAMES),
        kind=st.sampled_from((*RolloutKind, RolloutKind.CANARY)),
        digest=st.sampled_from((0, 1, 2)),
        drain_ms=st.sampled_from(DRAINS_MS),
        is_tight=st.booleans(),
    )
    def roll_out(
        self, data: st.DataObject, name: str, kind: RolloutKind, digest: int, drain_ms: float, is_tight: bool
    ) -> None:
        """Another revision is asked for; where it is tight, it finds no room beside the current one."""
        pool = self.runtime.core.state.pools.get(name)
        key = name_key(name, 2 if pool is None else pool.next_revision)
        base = plan_of(name)
        given: dict[str, Any] = {} if not digest else {"model_digest": f"sha256:{base.model_ref}-{digest}"}
        devices = data.draw(st.sampled_from((base.devices, base.devices, base.devices, (0,), (1,), (7,))))
        slots = data.draw(st.sampled_from((1, 2)))
        canary = CanaryPlan(
            share_buckets=data.draw(st.sampled_from((0, 6_000, 10_000))), judge=data.draw(st.sampled_from(JUDGES))
        )
        self.runtime.give(
            ev.RolloutRequested(
                ticket=self.ticket(),
                pool_id=name,
                plan=plan_of(key, devices=devices, slots=slots, **given),
                kind=kind,
                drain_ms=drain_ms,
                canary=canary if kind is RolloutKind.CANARY else None,
            )
        )
        if is_tight and isinstance(self.runtime.steps.get(key), ef.VerifyModel):
            self.runtime.pass_step(key, "b1")
            self.be_short_of(key)

    def be_short_of(self, key: str) -> None:
        if isinstance(self.runtime.steps.get(key), ef.MeasureRoom):
            self.runtime.be_short(key)

    @precondition(lambda self: live(self) and self.runtime.core.state.rolling)
    @rule(data=st.data(), what=st.sampled_from(("promote", "abort", "roll back", "share", "parity")))
    def decide(self, data: st.DataObject, what: str) -> None:
        """An operator or a measurement says something of a rollout that is under way."""
        name = data.draw(st.sampled_from(sorted(self.runtime.core.state.rolling)))
        rollout = self.runtime.core.state.pools[name].rollout
        assert rollout is not None
        number = int(rollout.key.partition("+")[2])
        events: dict[str, ev.Event] = {
            "promote": ev.RolloutPromoted(self.ticket(), name),
            "abort": ev.RolloutAborted(self.ticket(), name, "enough seen"),
            "roll back": ev.RollbackRequested(self.ticket(), name),
            "share": ev.CanaryShared(self.ticket(), name, data.draw(st.sampled_from((0, 5_000, 10_000)))),
            "parity": ev.ParityMeasured(name, number, data.draw(st.integers(0, 10)), 10),
        }
        self.runtime.give(events[what])

    def resting(self) -> list[str]:
        """Pools that are in no rollout, and whose worker runs or could."""
        pools = self.runtime.core.state.pools
        return sorted(name for name, pool in pools.items() if pool.rollout is None and pool.current in self.able())

    def able(self) -> set[str]:
        return {key for key, each in self.runtime.core.state.replicas.items() if each.can_run}

    def crowd(self, name: str, count: int, *, is_strict: bool) -> None:
        """Tasks come for the model of a pool, for the canary's side where there is one, and are on disk."""
        state = self.runtime.core.state
        model = state.replicas[state.pools[name].current].plan.model_ref
        for _ in range(count):
            self.names += 1
            self.runtime.give(ev.TaskSubmitted(make_task(f"j{self.names}", strict=is_strict, model_ref=model)))
        self.runtime.flush()

    def ask_next(self, name: str, canary: CanaryPlan | None = None) -> str:
        """The next revision of a pool is asked for, on the GPUs of the current one; gives its key."""
        key = name_key(name, self.runtime.core.state.pools[name].next_revision)
        kind = RolloutKind.RELOAD if canary is None else RolloutKind.CANARY
        plan = plan_of(key, model_digest=f"sha256:next-{key}")
        asked = ev.RolloutRequested(
            ticket=self.ticket(), pool_id=name, plan=plan, kind=kind, drain_ms=30_000.0, canary=canary
        )
        self.runtime.give(asked)
        return key

    @precondition(lambda self: live(self) and self.resting())
    @rule(count=st.integers(0, 4), is_strict=st.booleans())
    def make_way(self, count: int, is_strict: bool) -> None:
        """The next revision of a busy pool finds no room beside the current one."""
        name = self.resting()[-1]
        self.crowd(name, count, is_strict=is_strict)
        key = self.ask_next(name)
        if isinstance(self.runtime.steps.get(key), ef.VerifyModel):
            self.runtime.pass_step(key, "b1")
            self.be_short_of(key)

    @precondition(lambda self: live(self) and self.resting())
    @rule(judge=st.sampled_from(JUDGES))
    def begin_a_canary(self, judge: JudgePlan | None) -> None:
        """A canary comes up without trouble, and takes all of its alias."""
        key = self.ask_next(self.resting()[0], CanaryPlan(share_buckets=10_000, judge=judge))
        while key in self.runtime.steps:
            self.runtime.pass_step(key, "b1")

    def rolling_in(self, phase: RolloutPhase) -> list[str]:
        pools = self.runtime.core.state.pools
        return sorted(name for name, pool in pools.items() if pool.rollout is not None and pool.rollout.phase is phase)

    @precondition(lambda self: live(self) and self.rolling_in(RolloutPhase.DRAINING))
    @rule(is_failure=st.booleans())
    def think_again(self, is_failure: bool) -> None:
        """While the old worker makes way, the new one is not wanted any more, or fails once too often."""
        (name, *_) = self.rolling_in(RolloutPhase.DRAINING)
        rollout = self.runtime.core.state.pools[name].rollout
        assert rollout is not None
        if is_failure and rollout.key in self.runtime.steps:
            self.runtime.fail_step(rollout.key)
        else:
            self.runtime.give(ev.RolloutAborted(self.ticket(), name, "not today"))

    @precondition(lambda self: live(self) and self.rolling_in(RolloutPhase.SHARING))
    @rule(count=st.integers(1, 5), is_strict=st.booleans(), what=st.sampled_from(("promote", "roll back", "nothing")))
    def crowd_the_canary(self, count: int, is_strict: bool, what: str) -> None:
        """More tasks come to the canary's side than it has slots; then it takes over, or goes."""
        (name, *_) = self.rolling_in(RolloutPhase.SHARING)
        self.crowd(name, count, is_strict=is_strict)
        if what != "nothing":
            kind = ev.RolloutPromoted if what == "promote" else ev.RollbackRequested
            self.runtime.give(kind(self.ticket(), name))

    @precondition(lambda self: live(self) and self.runtime.core.state.rolling - {KEPT})
    @rule(drain_ms=st.sampled_from(DRAINS_MS))
    def remove_in_a_rollout(self, drain_ms: float) -> None:
        """The configuration has a pool no more whose rollout is under way."""
        gone = min(self.runtime.core.state.rolling - {KEPT})
        asked = ev.PoolsChanged(ticket=self.ticket(), generation=self.tickets, removed=(gone,), drain_ms=drain_ms)
        self.runtime.give(asked)

    @precondition(live)
    @rule(name=st.sampled_from(NAMES))
    def roll_back(self, name: str) -> None:
        self.runtime.give(ev.RollbackRequested(self.ticket(), name))

    @precondition(lambda self: live(self) and (self.runtime.steps or self.runtime.stops))
    @rule(version=st.sampled_from(("b1", "b1", "b2")), rounds=st.integers(1, 8))
    def come_up(self, version: str, rounds: int) -> None:
        """What stops is gone, and all workers come nearer to Ready."""
        for _ in range(rounds):
            for key in list(self.runtime.stops):
                self.runtime.end_stop(key)
            for key in list(self.runtime.steps):
                if key in self.runtime.steps:
                    self.runtime.pass_step(key, version)

    @precondition(lambda self: live(self) and self.measuring())
    @rule(is_all=st.booleans())
    def be_short(self, is_all: bool) -> None:
        """Whoever measures memory finds too little."""
        for key in self.measuring() if is_all else self.measuring()[:1]:
            self.be_short_of(key)

    def measuring(self) -> list[str]:
        return [key for key, step in self.runtime.steps.items() if isinstance(step, ef.MeasureRoom)]

    @precondition(lambda self: live(self) and self.runtime.live)
    @rule(count=st.integers(1, 3))
    def end_runs(self, count: int) -> None:
        """The oldest runs come to their end."""
        for run_id in list(self.runtime.live)[:count]:
            if run_id in self.runtime.live:
                self.runtime.finish_run(run_id)

    @precondition(live)
    @rule(
        data=st.data(),
        removed=st.sampled_from((*NAMES, None)),
        added=st.sampled_from((*NAMES, None)),
        order=st.sampled_from((None, *QueueOrder)),
        drain_ms=st.sampled_from(DRAINS_MS),
    )
    def change(
        self, data: st.DataObject, removed: str | None, added: str | None, order: QueueOrder | None, drain_ms: float
    ) -> None:
        """Another configuration: one pool less, one more, and other bounds for one that stays."""
        state = self.runtime.core.state
        gone = (removed,) if removed not in (None, KEPT) else ()
        come = () if added is None else (plan_of(name_key(added, next_revision(state, added))),)
        stay = sorted(pool.current for name, pool in state.pools.items() if name not in gone)
        tuned = structs.replace(state.replicas[data.draw(st.sampled_from(stay))].plan, first_token_ms=9_000)
        self.runtime.give(
            ev.PoolsChanged(
                ticket=self.ticket(),
                generation=self.tickets,
                added=come,
                removed=gone,
                tuned=() if order is None else (structs.replace(tuned, queue_order=order),),
                drain_ms=drain_ms,
            )
        )

    # Leases, and coming to rest

    @precondition(live)
    @rule(
        devices=st.sampled_from(GPUS),
        expires_ms=st.sampled_from((2_000.0, 3e6)),
        drain_to=st.sampled_from((None, *NAMES)),
    )
    def lend(self, devices: tuple[str, ...], expires_ms: float, drain_to: str | None) -> None:
        ticket = self.ticket()
        until = self.runtime.now + expires_ms
        note = LeaseNote(lease_id=ticket, devices=devices, owner="uid:0", purpose="train", expires_ms=until)
        note = structs.replace(note, drain_to=drain_to)
        self.runtime.give(ev.LeaseRequested(ticket, note, 2_000.0))

    @precondition(lambda self: live(self) and self.runtime.releases)
    @rule(cause=st.sampled_from((None, None, "GPU-0 still holds 900 MiB")))
    def release(self, cause: str | None) -> None:
        self.runtime.release(cause)

    @precondition(lambda self: live(self) and self.runtime.core.state.leases)
    @rule()
    def give_back(self) -> None:
        self.runtime.give(ev.LeaseEnded(next(iter(self.runtime.core.state.leases)), "it was given back"))

    @precondition(live)
    @rule(deadline_ms=st.sampled_from((None, None, 0.0, 2_000.0, 60_000.0)))
    def come_to_rest(self, deadline_ms: float | None) -> None:
        """The daemon is to be replaced by another one, and is not."""
        self.runtime.give(ev.QuiesceEnded() if deadline_ms is None else ev.QuiesceRequested(deadline_ms))

    # At the end

    def _mend(self) -> None:
        super()._mend()
        if self.runtime.is_halted:
            return
        for lease_id in list(self.runtime.core.state.leases):
            self.runtime.give(ev.LeaseEnded(lease_id, "the storm is over"))
        self.runtime.releases.clear()
        self.runtime.give(ev.QuiesceEnded())
        for name in list(self.runtime.core.state.pools):
            self.runtime.give(ev.ResumeRequested(name))

    def _is_quiet(self) -> bool:
        """Also every rollout has come to its end; a canary may go on."""
        pools = self.runtime.core.state.pools.values()
        phases = {pool.rollout.phase for pool in pools if pool.rollout is not None}
        return super()._is_quiet() and phases <= {RolloutPhase.SHARING}

    def _check(self) -> None:
        state = self.runtime.core.state
        workers = [(key, each.role, each.phase, each.cause) for key, each in state.replicas.items()]
        is_over = self.runtime.is_halted or self._is_quiet()
        assert is_over, f"it never comes to rest: {workers}, {[pool.rollout for pool in state.pools.values()]}"
        super()._check()


TestRollouts = pytest.mark.orch("ORCH-3031", "ORCH-3033", "ORCH-3053")(RolloutMachine.TestCase)
TestRollouts.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
