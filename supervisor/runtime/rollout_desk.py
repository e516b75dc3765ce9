"""Reload, canary, promote, abort and rollback of a pool, as operators ask for them (ORCH-3031, ORCH-3033).

Draws the blueprint of a new revision and asks the core; what then happens to workers and traffic is decided there. A
refusal leaves nothing behind.
"""

from collections.abc import Mapping, Sequence

from msgspec import UNSET, UnsetType

from supervisor.config.rollout import JudgeConfig
from supervisor.core import events as ev
from supervisor.core.intent import PoolIntent
from supervisor.core.refusals import Refused
from supervisor.core.revisions import CanaryPlan, JudgePlan, RolloutKind, name_key
from supervisor.core.rollout import Pool
from supervisor.runtime.answers import Answers, change_ticket
from supervisor.runtime.blueprint import PoolBlueprint
from supervisor.runtime.blueprints import Blueprints
from supervisor.runtime.configuration import Configuration
from supervisor.runtime.drafts import Drafts, under
from supervisor.runtime.loop import CoreLoop
from supervisor.runtime.pool_changes import PoolChanges, refuse_busy
from supervisor.runtime.rollout_views import view_rollouts
from supervisor.wire.codes import Code, Reason
from supervisor.wire.rollouts import (
    BUCKETS_PER_PERCENT,
    CanaryRequest,
    JudgeTerms,
    ReloadRequest,
    RolloutPage,
    RolloutStarted,
)

_Asked = ev.RolloutRequested | ev.RolloutPromoted | ev.RolloutAborted | ev.RollbackRequested | ev.CanaryShared


class RolloutDesk:
    """Every method answers RolloutStarted or why not."""

    def __init__(
        self, core: CoreLoop, answers: Answers, blueprints: Blueprints, configuration: Configuration, drafts: Drafts
    ) -> None:
        self._core = core
        self._changes = PoolChanges(core, answers, blueprints)
        self._configuration = configuration
        self._drafts = drafts

    async def reload(self, pool_id: str, request: ReloadRequest) -> RolloutStarted | Refused:
        """Another model for a pool; the one that serves stays until the new one is Ready."""
        drawn = await self.draw(pool_id, request.new_model_ref)
        if isinstance(drawn, Refused):
            return drawn
        return self._roll(
            drawn, RolloutKind.RELOAD, self._drain_ms(request.drain_ms), None, is_dry=request.dry_run is True
        )

    async def canary(self, pool_id: str, request: CanaryRequest) -> RolloutStarted | Refused:
        """A share of a pool's sessions for another model."""
        drawn = await self.draw(pool_id, request.new_model_ref)
        if isinstance(drawn, Refused):
            return drawn
        judge = draw_judge(self._configuration.config.rollout.judge, request.judge) if request.auto is True else None
        plan = CanaryPlan(share_buckets=buckets_of(request.percent), judge=judge)
        return self._roll(
            drawn, RolloutKind.CANARY, self._drain_ms(request.drain_ms), plan, is_dry=request.dry_run is True
        )

    def share(self, pool_id: str, percent: float) -> RolloutStarted | Refused:
        """Another share for the canary that runs."""
        return self._ask_known(ev.CanaryShared(change_ticket(), pool_id, buckets_of(percent)))

    def promote(self, pool_id: str) -> RolloutStarted | Refused:
        """The canary takes over."""
        return self._ask_known(ev.RolloutPromoted(change_ticket(), pool_id))

    def abort(self, pool_id: str) -> RolloutStarted | Refused:
        """What was begun is undone."""
        return self._ask_known(ev.RolloutAborted(change_ticket(), pool_id, "an operator aborted it"))

    async def rollback(self, pool_id: str) -> RolloutStarted | Refused:
        """The revision before serves again: at once where it is still loaded, else once it is loaded anew."""
        answer = self._ask_known(ev.RollbackRequested(change_ticket(), pool_id))
        if not isinstance(answer, Refused) or answer.reason is not Reason.NOT_FOUND:
            return answer
        pool = self._pool(pool_id)
        if isinstance(pool, Refused) or pool.previous is None:
            return answer
        drawn = await self.draw(pool_id, pool.previous.model_ref)
        if isinstance(drawn, Refused):
            return drawn
        return self._roll(drawn, RolloutKind.ROLLBACK, self._drain_ms(UNSET), None, is_dry=False)

    def resume_canaries(self, kept: Mapping[str, PoolIntent]) -> None:
        """Go on with the canaries of an earlier daemon, each as a new revision. Blocks; called before any worker runs.

        One whose pool was changed in the configuration since, or whose model is not to be had, is over.
        """
        for pool_id, wish in kept.items():
            pool, config = self._core.state.pools.get(pool_id), self._configuration.config
            if wish.canary is None or pool is None or config.artifact(wish.canary.revision.model_ref) is None:
                continue
            drawn = self._drafts.draw_now(config, pool_id, wish.canary.revision.model_ref)
            if drawn.plan.config_digest == wish.canary.revision.config_digest:
                self._roll(drawn, RolloutKind.CANARY, self._drain_ms(UNSET), wish.canary.plan, is_dry=False)

    def page(self, pool_id: str) -> RolloutPage | Refused:
        """What serves, what is under way, and what was."""
        pool = self._pool(pool_id)
        return pool if isinstance(pool, Refused) else view_rollouts(self._core.state, pool_id, self._core.now_ms())

    def _drain_ms(self, asked: int | UnsetType) -> float:
        return float(self._configuration.config.rollout.drain_ms if asked is UNSET else asked)

    def _pool(self, pool_id: str) -> Pool | Refused:
        return self._core.state.pools.get(pool_id) or _unknown()

    async def draw(self, pool_id: str, model_ref: str) -> PoolBlueprint | Refused:
        """A pool with another model, under the pool's own key; refused where there is none or it is in a rollout."""
        pool = self._pool(pool_id)
        if isinstance(pool, Refused):
            return pool
        if pool.rollout is not None:
            return refuse_busy(f"A rollout of pool {pool_id} is under way.", pool_id)
        return await self._drafts.draw(pool_id, model_ref)

    def _roll(
        self, drawn: PoolBlueprint, kind: RolloutKind, drain_ms: float, canary: CanaryPlan | None, *, is_dry: bool
    ) -> RolloutStarted | Refused:
        pool_id = drawn.plan.public_id
        pool = self._pool(pool_id)
        if isinstance(pool, Refused):
            return pool
        if is_dry:
            return RolloutStarted(pool_id=pool_id, revision=pool.next_revision, dry_run=True)
        revision = under(drawn, name_key(pool_id, pool.next_revision))
        asked = ev.RolloutRequested(
            ticket=change_ticket(), pool_id=pool_id, plan=revision.plan, kind=kind, drain_ms=drain_ms, canary=canary
        )
        return self._ask(asked, [revision])

    def _ask_known(self, event: _Asked) -> RolloutStarted | Refused:
        pool = self._pool(event.pool_id)
        return pool if isinstance(pool, Refused) else self._ask(event, [])

    def _ask(self, event: _Asked, drawn: Sequence[PoolBlueprint]) -> RolloutStarted | Refused:
        answer = self._changes.ask(event, drawn)
        if isinstance(answer, Refused):
            return answer
        return RolloutStarted(pool_id=answer.pool_id, revision=answer.revision)


def draw_judge(config: JudgeConfig, terms: JudgeTerms | UnsetType) -> JudgePlan:
    """The terms of a request over those of the configuration."""
    given = (
        {}
        if terms is UNSET
        else {name: value for name in terms.__struct_fields__ if (value := getattr(terms, name)) is not UNSET}
    )
    return JudgePlan(**{**config.model_dump(), **given})


def buckets_of(percent: float) -> int:
    """A share in buckets of 10,000."""
    return round(percent * BUCKETS_PER_PERCENT)


def _unknown() -> Refused:
    return Refused(code=Code.INVALID_PARAMS, reason=Reason.NOT_FOUND, message="There is no such pool.")
