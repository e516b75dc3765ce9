"""A stage on which pools are rolled out: the state is looked at after every event."""

from dataclasses import dataclass
from typing import Any

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.conductor import Conductor
from supervisor.core.invariants import violations
from supervisor.core.plan import HostPlan, PoolPlan
from supervisor.core.revisions import CanaryPlan, JudgePlan, Role, RolloutKind, RolloutPhase, name_key
from supervisor.core.rollout import Pool
from supervisor.core.tasks import Task
from tests.core.builders import BOTH, Stage, make_plan, only

NEW_DIGEST = "sha256:" + "b" * 64
DRAIN_MS = 20_000.0


@dataclass
class RolloutStage(Stage):
    """Every event leaves a sound state."""

    def give(self, event: ev.Event) -> list[ef.Effect]:
        effects = super().give(event)
        assert violations(self.core.state, self.now) == [], event
        return effects

    def pool(self, pool_id: str = "p0") -> Pool:
        return self.core.state.pools[pool_id]

    def role(self, key: str) -> Role:
        return self.replica(key).role

    def phase(self) -> RolloutPhase | None:
        rollout = self.pool().rollout
        return None if rollout is None else rollout.phase

    def begin(
        self, kind: RolloutKind = RolloutKind.RELOAD, *, canary: CanaryPlan | None = None, **plan: Any
    ) -> list[ef.Effect]:
        """Ask for the next revision of p0."""
        key = name_key("p0", self.pool().next_revision)
        given: dict[str, Any] = {"model_digest": NEW_DIGEST, **plan}
        return self.give(
            ev.RolloutRequested(
                ticket="t", pool_id="p0", plan=make_plan(key, **given), kind=kind, drain_ms=DRAIN_MS, canary=canary
            )
        )

    def come_up(self, key: str) -> None:
        """Let a new worker become Ready."""
        self.serve(key)

    def be_short(self, key: str, free_mib: int = 1_000) -> list[ef.Effect]:
        """Let a worker verify its model and find that there is no room."""
        inc = self.replica(key).incarnation
        self.give(ev.ModelVerified(key, inc, "d"))
        return self.measure(key, free_mib=free_mib)

    def fail(self, key: str) -> None:
        """Let a worker that verifies its model fail."""
        self.give(ev.StepFailed(key, self.replica(key).incarnation, "the digest is wrong"))

    def stopped(self, key: str) -> list[ef.Effect]:
        """Its process is gone, as was asked."""
        return self.give(ev.EngineStopped(key, self.replica(key).incarnation))

    def roll(self) -> None:
        """A whole reload: the next revision comes up and takes over."""
        key = name_key("p0", self.pool().next_revision)
        self.begin()
        self.come_up(key)


def rollout_stage(*plans: PoolPlan, host: HostPlan | None = None) -> RolloutStage:
    """Pools whose current revisions are all Ready."""
    stage = RolloutStage(Conductor(plans or (make_plan(),), host))
    stage.give(BOTH)
    for key in list(stage.core.state.replicas):
        stage.serve(key)
    stage.done.clear()
    return stage


def share(buckets: int, **terms: object) -> CanaryPlan:
    """A canary's share; judged where terms are given."""
    return CanaryPlan(share_buckets=buckets, judge=JudgePlan(**terms) if terms else None)  # type: ignore[arg-type]


def refusals(effects: list[ef.Effect]) -> list[str]:
    """Reasons of what was refused."""
    return [str(effect.refused.reason) for effect in only(effects, ef.AnswerRefused)]


def ids(tasks: list[Task]) -> list[str]:
    return [task.job_id for task in tasks]
