"""What a worker is made of, as one digest: two configs with the same digest of a pool need no other worker for it.

Keys whose change is `hot` are not in it: see `change_effects`.
"""

import hashlib

from supervisor.config.change_effects import POOL_EFFECTS, ChangeEffect
from supervisor.config.diff import value_at
from supervisor.config.model import Config
from supervisor.config.pool import PoolConfig


def digest_pool(config: Config, pool: PoolConfig) -> str:
    """64 hex digits."""
    paths = sorted(path for path, effect in POOL_EFFECTS.items() if effect is ChangeEffect.REPLACE)
    parts = [(path, _plain(value_at(pool, path))) for path in paths]
    parts += [("file", repr(config.artifact(pool.model))), ("program", repr(config.binary(pool)))]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _plain(value: object) -> str:
    return repr(sorted(value.items())) if isinstance(value, dict) else repr(value)
