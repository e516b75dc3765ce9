"""Outlooks of changes as operators see them: wire structs, made on request, decided nowhere."""

from supervisor.core.memory_desk import recipe_of
from supervisor.core.outlook import Outlook, Way
from supervisor.core.plan import PoolPlan
from supervisor.core.revisions import parse_key
from supervisor.core.state import State
from supervisor.wire.outlook import GivesWay, OutlookShare, PoolOutlook

_WITHOUT_WORKER = (Way.STOP_START, Way.RETURNS)


def view_outlook(state: State, plan: PoolPlan, outlook: Outlook, effect: str, keys: tuple[str, ...]) -> PoolOutlook:
    """One worker that a change would add."""
    pool_id, revision = parse_key(outlook.key)
    pool = state.pools.get(pool_id)
    old = None if pool is None else state.replicas[pool.current].plan
    learned = state.needs.find(plan.need.recipe) if plan.need is not None else None
    return PoolOutlook(
        pool_id=pool_id,
        effect=effect,
        way=outlook.way,
        keys=list(keys),
        from_revision=None if pool is None else parse_key(pool.current)[1],
        to_revision=revision,
        from_model=None if old is None else old.model_ref,
        to_model=plan.model_ref,
        cause=outlook.cause,
        shares=[
            OutlookShare(
                device=each.device,
                old_mib=each.old_mib,
                need_mib=each.need.mib,
                reserve_mib=each.reserve_mib,
                free_mib=each.free_mib,
                claimed_mib=each.owed_mib,
                source=each.need.source,
                why=each.need.why,
            )
            for each in outlook.takes
        ],
        gives_way=[_view_leaver(state, key) for key in outlook.gives_way],
        tasks_wait=outlook.way in _WITHOUT_WORKER,
        load_ms=None if learned is None else learned.load_ms,
        host_need_mib=outlook.host_need_mib,
    )


def view_untouched(state: State, pool_id: str, effect: str, way: Way, keys: tuple[str, ...] = ()) -> PoolOutlook:
    """A pool that gets no other worker: it stays as it is, or goes."""
    replica = state.replicas[state.pools[pool_id].current]
    learned = state.needs.find(recipe_of(replica)) if recipe_of(replica) else None
    return PoolOutlook(
        pool_id=pool_id,
        effect=effect,
        way=way,
        keys=list(keys),
        from_revision=parse_key(replica.pool_id)[1],
        from_model=replica.plan.model_ref,
        load_ms=None if learned is None or way is Way.STOPS else learned.load_ms,
    )


def _view_leaver(state: State, key: str) -> GivesWay:
    replica = state.replicas[key]
    return GivesWay(pool_id=replica.plan.public_id, revision=parse_key(key)[1], role=replica.role)
