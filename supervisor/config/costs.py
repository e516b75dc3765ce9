"""What the changes between two configs cost, one by one. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from supervisor.config.change_effects import HOST_EFFECTS, POOL_EFFECTS, ChangeEffect
from supervisor.config.diff import Change, DaemonChanged, PoolAdded, PoolChanged, PoolRemoved


@dataclass(frozen=True, slots=True)
class Cost:
    """One change. `pool_id` is None for a key of the daemon, `key` for a pool as a whole."""

    pool_id: str | None
    key: str | None
    effect: ChangeEffect


def list_costs(changes: Iterable[Change]) -> tuple[Cost, ...]:
    """In the order of the changes."""
    return tuple(cost for change in changes for cost in _costs_of(change))


def pools_with(costs: Iterable[Cost], effect: ChangeEffect) -> tuple[str, ...]:
    """The pools that one effect concerns, each once."""
    return tuple(dict.fromkeys(cost.pool_id for cost in costs if cost.effect is effect and cost.pool_id is not None))


def _costs_of(change: Change) -> tuple[Cost, ...]:
    match change:
        case PoolAdded(pool_id):
            return (Cost(pool_id, None, ChangeEffect.NEW_POOL),)
        case PoolRemoved(pool_id):
            return (Cost(pool_id, None, ChangeEffect.REMOVED_POOL),)
        case PoolChanged(pool_id, fields):
            return tuple(Cost(pool_id, key, effect) for key, effect in _effects_of(fields))
        case DaemonChanged(fields):
            return tuple(Cost(None, key, HOST_EFFECTS[key]) for key in fields)
        case _:
            assert_never(change)


def _effects_of(fields: Iterable[str]) -> list[tuple[str, ChangeEffect]]:
    """A pool gets what is new in one piece: beside a key that wants a new worker, hot ones come with that worker."""
    effects = [(key, POOL_EFFECTS[key]) for key in fields]
    if any(effect is ChangeEffect.REPLACE for _, effect in effects):
        return [(key, ChangeEffect.REPLACE) for key, _ in effects]
    return effects
