"""What changed between two configs, pool by pool. Pure; it decides nothing about what a change means."""

from dataclasses import dataclass

from supervisor.config.model import Config
from supervisor.config.pool import PoolConfig

_PER_POOL = frozenset({"pools", "models", "engines"})


@dataclass(frozen=True, slots=True)
class PoolAdded:
    """A pool that was not there before."""

    pool_id: str


@dataclass(frozen=True, slots=True)
class PoolRemoved:
    """A pool that is no longer wanted."""

    pool_id: str


@dataclass(frozen=True, slots=True)
class PoolChanged:
    """A pool that stays, with the names of its keys whose meaning changed, sorted."""

    pool_id: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DaemonChanged:
    """Top-level keys that concern no single pool, sorted."""

    fields: tuple[str, ...]


Change = PoolAdded | PoolRemoved | PoolChanged | DaemonChanged


def diff(old: Config, new: Config) -> tuple[Change, ...]:
    """Removed, added and changed pools, then the daemon's own keys. Equal configs give an empty tuple.

    A pool's `model` counts as changed when another file or digest stands behind the same name, and its `launch` when
    `engines` names another program for it; the order of the pools means nothing.
    """
    before = {pool.id: pool for pool in old.pools}
    after = {pool.id: pool for pool in new.pools}
    changes: list[Change] = [PoolRemoved(pool_id) for pool_id in before if pool_id not in after]
    changes += [PoolAdded(pool_id) for pool_id in after if pool_id not in before]
    for pool_id, pool in after.items():
        fields = _pool_fields(old, before[pool_id], new, pool) if pool_id in before else ()
        if fields:
            changes.append(PoolChanged(pool_id, fields))
    if own := tuple(sorted(name for name in _daemon_fields() if getattr(old, name) != getattr(new, name))):
        changes.append(DaemonChanged(own))
    return tuple(changes)


def _pool_fields(old: Config, before: PoolConfig, new: Config, after: PoolConfig) -> tuple[str, ...]:
    fields = {name for name in PoolConfig.model_fields if getattr(before, name) != getattr(after, name)}
    if old.artifact(before.model) != new.artifact(after.model):
        fields.add("model")
    if old.binary(before) != new.binary(after):
        fields.add("launch")
    return tuple(sorted(fields))


def _daemon_fields() -> frozenset[str]:
    return frozenset(Config.model_fields) - _PER_POOL
