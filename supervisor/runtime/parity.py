"""Performs MeasureParity: finds both engines of a pool and has them compared. Always ends in ParityMeasured."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from adapters.base import Workload
from supervisor.core.effects import MeasureParity
from supervisor.core.events import Event, ParityMeasured
from supervisor.core.revisions import parse_key
from supervisor.runtime.blueprint import PoolBlueprint
from supervisor.runtime.configuration import Configuration
from supervisor.runtime.engine_http import EngineHttp
from supervisor.runtime.golden import Engine, Parity, compare

log = logging.getLogger("orchctl")


class ParityProbe:
    """`engine_of` gives the client of the worker that has a key now, None where it has none."""

    def __init__(
        self,
        blueprints: Mapping[str, PoolBlueprint],
        engine_of: Callable[[str], EngineHttp | None],
        configuration: Configuration,
        post: Callable[[Event], None],
    ) -> None:
        self._blueprints = blueprints
        self._engine_of = engine_of
        self._configuration = configuration
        self._post = post
        self._tasks: set[asyncio.Task[None]] = set()

    def measure(self, effect: MeasureParity) -> None:
        """Begin; the answer comes as an event."""
        task = asyncio.create_task(self._measure(effect))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _measure(self, effect: MeasureParity) -> None:
        try:
            parity = await self._compare(effect)
        except Exception as bug:
            log.exception("the golden prompts broke", extra={"pool_id": effect.pool_id})
            parity = Parity(0, 0, f"a bug in the daemon: {type(bug).__name__}")
        fields = {"pool_id": effect.pool_id, "matched": parity.matched, "total": parity.total, "cause": parity.detail}
        log.info("golden prompts compared", extra=fields)
        revision = parse_key(effect.new_key)[1]
        self._post(ParityMeasured(effect.pool_id, revision, parity.matched, parity.total, parity.detail))

    async def _compare(self, effect: MeasureParity) -> Parity:
        terms = self._configuration.config.rollout
        if not terms.parity:
            return Parity(0, 0, "the configuration says not to compare")
        sides = (self._side(effect.old_key), self._side(effect.new_key))
        old, new = sides
        if old is None or new is None:
            return Parity(0, 0, "one of the two revisions does not run or does no completions")
        return await compare(old, new, terms.golden_prompts, terms.golden_tokens)

    def _side(self, key: str) -> Engine | None:
        blueprint, http = self._blueprints.get(key), self._engine_of(key)
        if blueprint is None or http is None or blueprint.adapter is None:
            return None
        return Engine(blueprint.adapter, http) if Workload.COMPLETION in blueprint.asked_of else None

    async def close(self) -> None:
        """Let go of what is under way."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
