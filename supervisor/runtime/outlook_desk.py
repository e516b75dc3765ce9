"""Answers what a change would do (`POST /v1/plan`): draws what the change would draw, measures, and asks the core.

Reads, measures and changes nothing. A change that would be refused as a whole is answered as one, with its cause.
"""

from collections.abc import Callable, Collection, Sequence

from msgspec import UNSET, Struct

from supervisor.config.change_effects import ChangeEffect
from supervisor.config.costs import Cost, pools_with
from supervisor.config.load import Loaded
from supervisor.core.events import RoomMeasured
from supervisor.core.mask_rules import find_refusals
from supervisor.core.outlook import Foresight, Outlook, Way, looker_for
from supervisor.core.plan import PoolPlan
from supervisor.core.refusals import Refused
from supervisor.core.replicas import Replica
from supervisor.core.revisions import RolloutKind, name_key
from supervisor.runtime import host_memory
from supervisor.runtime.config_desk import ConfigDesk, refuse_restart, view_costs, view_warnings
from supervisor.runtime.configuration import Configuration
from supervisor.runtime.drafts import Drafts, under
from supervisor.runtime.gpus import GpuSource
from supervisor.runtime.loop import CoreLoop
from supervisor.runtime.outlook_views import view_outlook, view_untouched
from supervisor.runtime.rollout_desk import RolloutDesk
from supervisor.runtime.room import RoomError, measure
from supervisor.wire.codes import Code, Reason
from supervisor.wire.outlook import ChangeOutlook, OutlookRequest, PoolOutlook


class _Draft(Struct, frozen=True):
    """One worker that the change would add; `kind` is None for a pool that is new."""

    plan: PoolPlan
    kind: RolloutKind | None
    effect: str
    keys: tuple[str, ...] = ()


class OutlookDesk:
    """`engines` gives the pids of our own engines."""

    def __init__(
        self,
        core: CoreLoop,
        rollouts: RolloutDesk,
        config_desk: ConfigDesk,
        configuration: Configuration,
        drafts: Drafts,
        gpus: GpuSource,
        engines: Callable[[], Collection[int]],
        simulated: str | None,
    ) -> None:
        self._core = core
        self._rollouts = rollouts
        self._config_desk = config_desk
        self._configuration = configuration
        self._drafts = drafts
        self._gpus = gpus
        self._engines = engines
        self._simulated = simulated

    async def ask(self, request: OutlookRequest) -> ChangeOutlook | Refused:
        """What the change would do now."""
        if (request.pool_id is UNSET) != (request.new_model_ref is UNSET):
            return _wrong("pool_id and new_model_ref belong together.")
        if request.pool_id is not UNSET and request.new_model_ref is not UNSET:
            return await self._model(request.pool_id, request.new_model_ref, is_canary=request.canary is True)
        if request.canary is True:
            return _wrong("canary: of which pool, with which model?")
        return await self._config(request)

    async def _model(self, pool_id: str, model_ref: str, *, is_canary: bool) -> ChangeOutlook | Refused:
        drawn = await self._rollouts.draw(pool_id, model_ref)
        if isinstance(drawn, Refused):
            return drawn
        kind = RolloutKind.CANARY if is_canary else RolloutKind.RELOAD
        plan = under(drawn, self._next_key(pool_id)).plan
        return self._answer(await self._judge([_Draft(plan, kind, str(kind))], ()))

    async def _config(self, request: OutlookRequest) -> ChangeOutlook | Refused:
        text = None if request.config is UNSET else request.config
        compared = await self._config_desk.compare(revert=request.revert is True, text=text)
        if isinstance(compared, Refused):
            return compared
        loaded, costs = compared
        refused = refuse_restart(costs) or self._config_desk.refuse_now(costs)
        pools = [] if refused is not None else await self._pools_of(loaded, costs)
        return self._answer(pools, loaded, costs, refused)

    def _answer(
        self,
        pools: list[PoolOutlook],
        loaded: Loaded | None = None,
        costs: Sequence[Cost] = (),
        refused: Refused | None = None,
    ) -> ChangeOutlook:
        return ChangeOutlook(
            simulated=self._simulated,
            pools=pools,
            changes=view_costs(costs),
            generation=None if loaded is None else self._configuration.generation + bool(costs),
            refused=None if refused is None else refused.message,
            host_free_mib=host_memory.look().free_mib,
            warnings=[] if loaded is None else view_warnings(loaded),
        )

    async def _pools_of(self, loaded: Loaded, costs: Sequence[Cost]) -> list[PoolOutlook]:
        """New pools, then those whose worker is replaced, as a reload would take them; then the rest."""
        drawn = await self._drafts.draw_pools(loaded.config, {cost.pool_id for cost in costs if cost.pool_id})
        removed = pools_with(costs, ChangeEffect.REMOVED_POOL)
        replaced = pools_with(costs, ChangeEffect.REPLACE)
        drafts = [
            _Draft(drawn[pool_id].plan, None, ChangeEffect.NEW_POOL)
            for pool_id in pools_with(costs, ChangeEffect.NEW_POOL)
        ]
        for pool_id in replaced:
            plan = under(drawn[pool_id], self._next_key(pool_id)).plan
            drafts.append(_Draft(plan, RolloutKind.CONFIG, ChangeEffect.REPLACE, _keys_of(costs, pool_id)))
        outlooks = await self._judge(drafts, removed)
        state = self._core.state
        outlooks += [view_untouched(state, pool_id, ChangeEffect.REMOVED_POOL, Way.STOPS) for pool_id in removed]
        outlooks += [
            view_untouched(state, pool_id, ChangeEffect.HOT, Way.STAYS, _keys_of(costs, pool_id))
            for pool_id in pools_with(costs, ChangeEffect.HOT)
            if pool_id not in replaced
        ]
        return outlooks

    async def _judge(self, drafts: Sequence[_Draft], removed: Collection[str]) -> list[PoolOutlook]:
        """Measure all of them first: what is then judged is judged in one turn of the loop."""
        looks = [await self._look(draft.plan) for draft in drafts]
        state = self._core.state
        unfit = self._unfit(drafts, removed)
        foresight, found = Foresight(state, removed), []
        for draft, (looker, measured) in zip(drafts, looks, strict=True):
            refusal = unfit.get(draft.plan.pool_id)
            if refusal is not None:
                outlook = Outlook(looker.pool_id, Way.NEVER, refusal)
            elif isinstance(measured, RoomMeasured):
                outlook = foresight.judge(draft.kind, looker, measured)
            else:
                outlook = Outlook(looker.pool_id, Way.FAILS, measured)
            found.append(view_outlook(state, draft.plan, outlook, draft.effect, draft.keys))
        return found

    async def _look(self, plan: PoolPlan) -> tuple[Replica, RoomMeasured | str]:
        """What is free for it, or why that cannot be said."""
        looker, missing = looker_for(self._core.state, plan, self._core.now_ms())
        if missing is not None:
            return looker, missing
        try:
            return looker, await measure((plan.pool_id, 0), plan.need, looker.devices, self._gpus, self._engines)
        except RoomError as error:
            return looker, str(error)

    def _unfit(self, drafts: Sequence[_Draft], removed: Collection[str]) -> dict[str, str]:
        """New pools and revisions that the rules of masks will refuse beside the pools that stay."""
        state = self._core.state
        serving = (state.replicas[pool.current].plan for pool in state.pools.values())
        plans = [plan for plan in serving if plan.public_id not in removed]
        new = [draft.plan for draft in drafts if draft.kind is None]
        revisions = [draft.plan for draft in drafts if draft.kind is not None]
        return find_refusals([*plans, *new], state.devices.seen, revisions)

    def _next_key(self, pool_id: str) -> str:
        return name_key(pool_id, self._core.state.pools[pool_id].next_revision)


def _keys_of(costs: Sequence[Cost], pool_id: str) -> tuple[str, ...]:
    return tuple(cost.key for cost in costs if cost.pool_id == pool_id and cost.key is not None)


def _wrong(message: str) -> Refused:
    return Refused(code=Code.INVALID_PARAMS, reason=Reason.FIELD, message=message)
