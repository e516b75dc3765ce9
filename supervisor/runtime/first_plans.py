"""Which revision of each pool a daemon starts with: the one that served before, where its pool was not changed since.

1. Nothing is known of the pool: its first revision, with the model of the configuration.
2. What its worker is made of was changed in the configuration: the configuration wins, as the next revision.
3. The model that served is not to be had any more: as 2, and one line in the log.
4. Else the revision that served, with its model: a reload, a promotion and a rollback outlive a restart.
"""

import logging
from collections.abc import Callable, Mapping

from supervisor.config.model import Config
from supervisor.config.pool import PoolConfig
from supervisor.config.pool_digest import digest_pool
from supervisor.core.intent import PoolIntent
from supervisor.core.revisions import name_key
from supervisor.runtime.blueprint import PoolBlueprint
from supervisor.runtime.drafts import under

log = logging.getLogger("orchctl")

Draw = Callable[[Config, str, str], PoolBlueprint]
"""The blueprint of a pool with a model, under the pool's own key."""


def draw_first(config: Config, kept: Mapping[str, PoolIntent], draw: Draw) -> dict[str, PoolBlueprint]:
    """The blueprints to start with, by the key of the worker, in the order of the configuration."""
    drawn = (_draw(config, pool, kept.get(pool.id), draw) for pool in config.pools)
    return {each.plan.pool_id: each for each in drawn}


def _draw(config: Config, pool: PoolConfig, kept: PoolIntent | None, draw: Draw) -> PoolBlueprint:
    if kept is None:  # 1
        return draw(config, pool.id, pool.model)
    served = kept.current
    is_unchanged = served.config_digest == digest_pool(config, pool)
    if is_unchanged and (served.model_ref == pool.model or config.artifact(served.model_ref) is not None):  # 4
        return under(draw(config, pool.id, served.model_ref), name_key(pool.id, served.number))
    fields = {"pool_id": pool.id, "model": served.model_ref, "changed": not is_unchanged}
    log.warning("the revision that served is not taken up again", extra=fields)
    return under(draw(config, pool.id, pool.model), name_key(pool.id, kept.next_revision))  # 2, 3
