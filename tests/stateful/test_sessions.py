"""Sessions under any order of turns, ends, losses, drains and deletions, against a naive picture of every slot."""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from supervisor.core import events as ev
from supervisor.core.lifecycle import Phase
from supervisor.core.plan import HostPlan
from tests.core.builders import BOTH, make_plan, make_task
from tests.stateful.honest_runtime import HonestRuntime

TTL_MS = 20_000
SESSIONS = (None, b"a", b"b", b"c", b"d")


class SessionsMachine(RuleBasedStateMachine):
    """The oracle says after every event which turn may and which must be warm, and whose KV may be overwritten."""

    runtime: HonestRuntime

    @initialize(
        slots=st.lists(st.sampled_from((1, 2, 3)), min_size=1, max_size=3),
        turns_max=st.integers(1, 4),
        sessions_max=st.integers(1, 5),
    )
    def begin(self, slots: list[int], turns_max: int, sessions_max: int) -> None:
        plans = tuple(
            make_plan(f"p{number}", slots=count, can_pin_slots=True, wall_ms=10**9)
            for number, count in enumerate(slots)
        )
        host = HostPlan(session_ttl_ms=TTL_MS, session_turns_max=turns_max, sessions_max=sessions_max)
        self.runtime = HonestRuntime(plans, host)
        self.names = 0
        self.runtime.give(BOTH)
        for plan in plans:
            self._restart(plan.pool_id)

    def _restart(self, pool_id: str) -> None:
        runtime = self.runtime
        if pool_id in runtime.stops:
            runtime.end_stop(pool_id)
        runtime.give(ev.ResumeRequested(pool_id))
        while pool_id in runtime.steps:
            runtime.pass_step(pool_id, "b1")

    def pool(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from([plan.pool_id for plan in self.runtime.plans]))

    @rule(session=st.sampled_from(SESSIONS), tenant=st.sampled_from(("x", "x", "y")), strict=st.integers(0, 7))
    def submit(self, session: bytes | None, tenant: str, strict: int) -> None:
        self.names += 1
        is_strict = strict == 7
        task = make_task(
            f"j{self.names}",
            tenant=tenant,
            strict=is_strict,
            session=None if is_strict else session,
            admitted_ms=self.runtime.now,
        )
        self.runtime.give(ev.TaskSubmitted(task))
        self.runtime.flush()

    @precondition(lambda self: self.runtime.live)
    @rule(data=st.data(), tokens=st.integers(0, 3), is_cancelled=st.sampled_from((False, False, False, True)))
    def end_run(self, data: st.DataObject, tokens: int, is_cancelled: bool) -> None:
        run_id = data.draw(st.sampled_from(list(self.runtime.live)))
        run = self.runtime.live[run_id]
        run.tokens += tokens
        if is_cancelled:
            self.names += 1
            self.runtime.give(ev.CancelRequested(f"c{self.names}", run.effect.task.job_id))
        else:
            self.runtime.finish_run(run_id)
        self.runtime.flush()

    @precondition(lambda self: self.runtime.confirms)
    @rule(data=st.data())
    def see_idle(self, data: st.DataObject) -> None:
        self.runtime.confirm(data.draw(st.integers(0, len(self.runtime.confirms) - 1)), is_idle=True)

    @rule(ms=st.sampled_from((1.0, 3_000.0, 7_000.0, float(TTL_MS))))
    def wait(self, ms: float) -> None:
        self.runtime.pass_ms(ms)

    @rule(session=st.sampled_from(SESSIONS[1:]), tenant=st.sampled_from(("x", "y")))
    def delete(self, session: bytes, tenant: str) -> None:
        self.runtime.give(ev.SessionEndRequested(tenant, session))

    @rule(data=st.data(), what=st.sampled_from(("lose", "drain", "resume")))
    def disturb(self, data: st.DataObject, what: str) -> None:
        pool_id = self.pool(data)
        replica = self.runtime.core.state.replicas[pool_id]
        match what:
            case "lose" if replica.phase is Phase.READY:
                self.runtime.die(pool_id)
                self._restart(pool_id)
            case "drain":
                self.runtime.give(ev.DrainRequested(pool_id, 60_000.0))
            case _:
                self._restart(pool_id)


TestSessions = SessionsMachine.TestCase
TestSessions.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
