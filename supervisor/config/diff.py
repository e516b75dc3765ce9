"""What changed between two configs, pool by pool. Pure; it decides nothing about what a change means.

A key is named by its path, `queue.capacity`. A section that may be absent, a list and a mapping count as one value.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter

from supervisor.config.fields import Section
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
    """A pool that stays, with the paths of its keys whose meaning changed, sorted."""

    pool_id: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DaemonChanged:
    """Paths of keys that concern no single pool, sorted."""

    fields: tuple[str, ...]


Change = PoolAdded | PoolRemoved | PoolChanged | DaemonChanged


def diff(old: Config, new: Config) -> tuple[Change, ...]:
    """Removed, added and changed pools, then the daemon's own keys. Equal configs give an empty tuple.

    A pool's `model` counts as changed when another file or digest stands behind the same name, its `launch.binary` when
    `engines` names another program for it, and its grace when `stream` does; the order of the pools means nothing.
    """
    before = {pool.id: pool for pool in old.pools}
    after = {pool.id: pool for pool in new.pools}
    changes: list[Change] = [PoolRemoved(pool_id) for pool_id in before if pool_id not in after]
    changes += [PoolAdded(pool_id) for pool_id in after if pool_id not in before]
    for pool_id, pool in after.items():
        fields = _pool_fields(old, before[pool_id], new, pool) if pool_id in before else ()
        if fields:
            changes.append(PoolChanged(pool_id, fields))
    if own := tuple(sorted(_differing(old, new, daemon_paths()))):
        changes.append(DaemonChanged(own))
    return tuple(changes)


def key_paths(section: type[Section]) -> Iterator[str]:
    """The path of every key below a section, in the order of its definition."""
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from (f"{name}.{path}" for path in key_paths(inner))
        else:
            yield name


def pool_paths() -> tuple[str, ...]:
    """The keys of a pool whose change leaves it the same pool."""
    return tuple(path for path in key_paths(PoolConfig) if path != "id")


def daemon_paths() -> tuple[str, ...]:
    """The keys that concern no single pool."""
    return tuple(path for path in key_paths(Config) if path not in _PER_POOL)


def value_at(section: Section, path: str) -> object:
    """What a config says at a path."""
    return attrgetter(path)(section)


def _pool_fields(old: Config, before: PoolConfig, new: Config, after: PoolConfig) -> tuple[str, ...]:
    fields = _differing(before, after, pool_paths())
    if old.artifact(before.model) != new.artifact(after.model):
        fields.add("model")
    if old.binary(before) != new.binary(after):
        fields.add("launch.binary")
    if old.grace_ms(before) != new.grace_ms(after):
        fields.add("disconnect_grace_ms")
    return tuple(sorted(fields))


def _differing(before: Section, after: Section, paths: tuple[str, ...]) -> set[str]:
    return {path for path in paths if value_at(before, path) != value_at(after, path)}
