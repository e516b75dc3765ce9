"""Draws blueprints of revisions out of the configuration in force; models that came into the store since are found.

Reading a model's head and the catalogue blocks, so it is done in a side thread. Starts nothing.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from msgspec import structs

from supervisor.config.catalogue import CatalogueError
from supervisor.config.known_models import with_models_now
from supervisor.config.model import Config
from supervisor.core.memory_need import PoolNeed
from supervisor.core.refusals import Refused
from supervisor.runtime.blueprint import PoolBlueprint, draw_revision
from supervisor.runtime.configuration import Configuration
from supervisor.wire.codes import Code, Reason

_HOT_FIELDS = (
    "queue_capacity",
    "queue_bytes_max",
    "full_policy",
    "queue_order",
    "classes",
    "determinism",
    "wall_ms",
    "idle_ms",
    "first_token_ms",
    "disconnect_grace_ms",
    "load_timeout_ms",
    "probe_every_ms",
    "probe_within_ms",
)
"""What of a plan holds for a worker that runs already."""


class Drafts:
    """`kv_bytes_per_token` reads it of a model file, 0 where nobody knows; `need_of` estimates a worker's memory."""

    def __init__(
        self,
        configuration: Configuration,
        kv_bytes_per_token: Callable[[Path], int],
        need_of: Callable[[PoolBlueprint], PoolNeed | None],
        models_dir: Path,
    ) -> None:
        self._configuration = configuration
        self._kv_bytes_per_token = kv_bytes_per_token
        self._need_of = need_of
        self._models_dir = models_dir

    async def draw(self, pool_id: str, model_ref: str) -> PoolBlueprint | Refused:
        """A pool of the configuration with another model, under the pool's own key. Refused: nothing can load it."""
        if self._configuration.config.artifact(model_ref) is None:
            await self._look_into_store()
        while True:
            config = self._configuration.config
            if config.pool(pool_id) is None:
                return refuse_model(pool_id, f"Pool {pool_id} is not in the configuration.")
            if config.artifact(model_ref) is None:
                message = f"Model {model_ref} is neither declared under `models:` nor in the store."
                return refuse_model(pool_id, message)
            drawn = await asyncio.to_thread(self.draw_now, config, pool_id, model_ref)
            if self._configuration.config is config:  # else another one was taken up meanwhile
                break
        if drawn.plan.unplannable is not None:
            return refuse_model(pool_id, f"Model {model_ref} cannot be loaded: {drawn.plan.unplannable}.")
        return drawn

    async def draw_pools(self, config: Config, pool_ids: Iterable[str]) -> Mapping[str, PoolBlueprint]:
        """These pools as a configuration has them, each under its own key."""
        wanted = [pool for pool in config.pools if pool.id in set(pool_ids)]
        return {pool.id: await asyncio.to_thread(self.draw_now, config, pool.id, pool.model) for pool in wanted}

    def draw_now(self, config: Config, pool_id: str, model_ref: str) -> PoolBlueprint:
        """The same of one pool with any model. Blocks."""
        pool = config.pool(pool_id)
        assert pool is not None, pool_id
        source = self._configuration.source
        drawn = draw_revision(config, pool, pool_id, model_ref, source, self._kv_bytes_per_token)
        return replace(drawn, plan=structs.replace(drawn.plan, need=self._need_of(drawn)))

    async def _look_into_store(self) -> None:
        config = self._configuration.config
        try:
            refreshed = await asyncio.to_thread(with_models_now, config, self._models_dir)
        except CatalogueError:
            return
        if self._configuration.config is config:
            self._configuration.knows_models(refreshed)


def under(blueprint: PoolBlueprint, key: str) -> PoolBlueprint:
    """The same blueprint for the worker of that key."""
    return replace(blueprint, plan=structs.replace(blueprint.plan, pool_id=key))


def tuned(running: PoolBlueprint, drawn: PoolBlueprint) -> PoolBlueprint:
    """A worker that runs, with the bounds of a newly drawn blueprint of its pool."""
    hot = {name: getattr(drawn.plan, name) for name in _HOT_FIELDS}
    return replace(running, plan=structs.replace(running.plan, **hot))


def refuse_model(pool_id: str, message: str) -> Refused:
    """INVALID_PARAMS: this pool cannot have that model."""
    return Refused(code=Code.INVALID_PARAMS, reason=Reason.MODEL, message=message, pool_id=pool_id)
