"""Takes up a changed configuration while the daemon runs (ORCH-3031): whole or not at all, one at a time.

1. Read and validate everything; one mistake, and nothing changes. 2. Compare with what is in force, key by key.
3. A key that needs a restart of the daemon refuses the whole file, by name. 4. Draw the blueprints. 5. Keep the new
text on disk. 6. In one turn of the loop: pools that come, go or have other bounds, then one rollout for each pool whose
worker must be replaced. Pools that did not change are not touched. How a worker is replaced is decided elsewhere.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from supervisor.config.change_effects import ChangeEffect
from supervisor.config.costs import Cost, list_costs, pools_with
from supervisor.config.diff import diff
from supervisor.config.load import Loaded
from supervisor.config.problems import ConfigError
from supervisor.core import events as ev
from supervisor.core.refusals import Refused
from supervisor.core.revisions import RolloutKind, name_key
from supervisor.runtime.answers import Answers, change_ticket
from supervisor.runtime.blueprint import PoolBlueprint, draw_host
from supervisor.runtime.blueprints import Blueprints
from supervisor.runtime.config_store import Kept
from supervisor.runtime.configuration import Configuration
from supervisor.runtime.drafts import Drafts, tuned, under
from supervisor.runtime.loop import CoreLoop
from supervisor.runtime.pool_changes import PoolChanges, refuse_busy
from supervisor.runtime.private_files import UnsafeStateError
from supervisor.wire.codes import Code, Reason
from supervisor.wire.rollouts import ConfigChange, ConfigReloaded

log = logging.getLogger("orchctl")

PROBLEMS_SHOWN_MAX = 5


class ConfigDesk:
    """`reload` is asked by operators, `hang_up` by SIGHUP: any number of those become one more reload at most.

    `make_room` is told how many tasks can run at one time now.
    """

    def __init__(
        self,
        core: CoreLoop,
        answers: Answers,
        blueprints: Blueprints,
        configuration: Configuration,
        drafts: Drafts,
        make_room: Callable[[int], None],
    ) -> None:
        self._core = core
        self._blueprints = blueprints
        self._changes = PoolChanges(core, answers, blueprints)
        self._configuration = configuration
        self._drafts = drafts
        self._make_room = make_room
        self._reloading = asyncio.Lock()
        self._is_hung_up = False
        self._is_wanted_again = False

    async def reload(self, *, dry_run: bool = False, revert: bool = False) -> ConfigReloaded | Refused:
        """Take up the file, or the configuration before this one. A second reload beside one that runs is refused."""
        if self._reloading.locked():
            return refuse_busy("A reload of the configuration is under way.")
        async with self._reloading:
            return await self._reload(dry_run=dry_run, revert=revert)

    async def hang_up(self) -> None:
        """Reload, and once more where it was asked for in the meantime."""
        self._is_wanted_again = True
        if self._is_hung_up:
            return
        self._is_hung_up = True
        try:
            while self._is_wanted_again:
                self._is_wanted_again = False
                async with self._reloading:
                    answer = await self._reload(dry_run=False, revert=False)
                if isinstance(answer, Refused):
                    log.error("configuration not taken up", extra={"reason": answer.reason, "cause": answer.message})
        finally:
            self._is_hung_up = False

    async def _reload(self, *, dry_run: bool, revert: bool) -> ConfigReloaded | Refused:
        compared = await self.compare(revert=revert)
        if isinstance(compared, Refused):
            return compared
        loaded, costs = compared
        if (refused := refuse_restart(costs)) is not None:
            return refused
        if dry_run:
            return self._report(self._configuration.generation + bool(costs), costs, loaded, dry_run=True)
        refused = await self._take_up(loaded, costs, is_reverted=revert)
        return refused or self._report(self._configuration.generation, costs, loaded, dry_run=False)

    async def compare(
        self, *, revert: bool = False, text: str | None = None
    ) -> tuple[Loaded, tuple[Cost, ...]] | Refused:
        """The file, the configuration before this one or a text, and what its changes cost. Changes nothing."""
        loaded = await self._read(revert=revert, text=text)
        if isinstance(loaded, Refused):
            return loaded
        return loaded, list_costs(diff(self._configuration.config, loaded.config))

    async def _read(self, *, revert: bool, text: str | None) -> Loaded | Refused:
        reader, previous = self._configuration.reader, self._configuration.previous
        try:
            if text is not None:
                return await asyncio.to_thread(reader.parse, text)
            if not revert:
                return await asyncio.to_thread(reader.read)
            if previous is None:
                message = "There is no configuration before this one."
                return Refused(code=Code.INVALID_PARAMS, reason=Reason.NOT_FOUND, message=message)
            return await asyncio.to_thread(reader.parse, previous)
        except ConfigError as error:
            return _refuse_problems(error, self._configuration.source)

    def _report(self, generation: int, costs: Sequence[Cost], loaded: Loaded, *, dry_run: bool) -> ConfigReloaded:
        return ConfigReloaded(
            generation=generation,
            dry_run=dry_run,
            changes=view_costs(costs),
            warnings=view_warnings(loaded),
        )

    async def _take_up(self, loaded: Loaded, costs: Sequence[Cost], *, is_reverted: bool) -> Refused | None:
        configuration = self._configuration
        drawn = await self._drafts.draw_pools(loaded.config, {cost.pool_id for cost in costs if cost.pool_id})
        kept = configuration.next_of(loaded, is_changed=bool(costs), is_reverted=is_reverted)
        before = configuration.kept
        try:
            await asyncio.to_thread(configuration.keep, kept)
        except (OSError, UnsafeStateError) as error:
            return Refused(code=Code.INTERNAL, reason=Reason.DISK, message=f"It could not be kept: {_why(error)}.")
        refused = self._change(loaded, costs, drawn, kept) if costs else None
        if refused is not None:
            await self._keep_again(before)
            return refused
        configuration.take(loaded, kept)
        self._make_room(sum(each.plan.slots for each in self._blueprints.values()))
        counts = {str(effect): sum(cost.effect is effect for cost in costs) for effect in ChangeEffect}
        log.info("configuration in force", extra={"generation": kept.generation, "reverted": is_reverted, **counts})
        return None

    async def _keep_again(self, before: Kept) -> None:
        """The text that is still in force. Where that fails the next start reads the file anyway."""
        try:
            await asyncio.to_thread(self._configuration.keep, before)
        except (OSError, UnsafeStateError) as error:
            log.error("the configuration in force could not be kept", extra={"cause": _why(error)})  # noqa: TRY400

    def _change(
        self, loaded: Loaded, costs: Sequence[Cost], drawn: Mapping[str, PoolBlueprint], kept: Kept
    ) -> Refused | None:
        """Tell the core. No await stands in here: nothing can come between the check and the change."""
        if (refused := self.refuse_now(costs)) is not None:
            return refused
        removed = pools_with(costs, ChangeEffect.REMOVED_POOL)
        replaced = pools_with(costs, ChangeEffect.REPLACE)
        added = pools_with(costs, ChangeEffect.NEW_POOL)
        hot = [pool_id for pool_id in pools_with(costs, ChangeEffect.HOT) if pool_id not in replaced]
        tunings = [tuned(running, drawn[pool_id]) for pool_id in hot for running in self._blueprints.of_pool(pool_id)]
        drain_ms = float(loaded.config.rollout.drain_ms)
        changed = ev.PoolsChanged(
            ticket=change_ticket(),
            generation=kept.generation,
            added=tuple(drawn[pool_id].plan for pool_id in added),
            removed=removed,
            tuned=tuple(each.plan for each in tunings),
            host=draw_host(loaded.config),
            drain_ms=drain_ms,
        )
        if (refused := self._post(changed, [*tunings, *(drawn[pool_id] for pool_id in added)])) is not None:
            return refused
        for pool_id in replaced:
            self._replace(pool_id, drawn[pool_id], drain_ms)
        return None

    def refuse_now(self, costs: Sequence[Cost]) -> Refused | None:
        """Whether one of these pools is in a change already."""
        state = self._core.state
        for pool_id in (*pools_with(costs, ChangeEffect.REMOVED_POOL), *pools_with(costs, ChangeEffect.REPLACE)):
            if state.pools[pool_id].rollout is not None:
                return refuse_busy(f"A rollout of pool {pool_id} is under way.", pool_id)
        gone = [pool_id for pool_id in pools_with(costs, ChangeEffect.NEW_POOL) if pool_id in state.replicas]
        return refuse_busy(f"The former pool {gone[0]} is still on its way out.") if gone else None

    def _replace(self, pool_id: str, drawn: PoolBlueprint, drain_ms: float) -> None:
        """A new worker for a pool; what becomes of it is in the pool's health and history."""
        revision = under(drawn, name_key(pool_id, self._core.state.pools[pool_id].next_revision))
        asked = ev.RolloutRequested(
            ticket=change_ticket(), pool_id=pool_id, plan=revision.plan, kind=RolloutKind.CONFIG, drain_ms=drain_ms
        )
        if (refused := self._post(asked, [revision])) is not None:
            log.error("pool not replaced", extra={"pool_id": pool_id, "cause": refused.message})

    def _post(self, event: ev.PoolsChanged | ev.RolloutRequested, drawn: Sequence[PoolBlueprint]) -> Refused | None:
        answer = self._changes.ask(event, drawn)
        return answer if isinstance(answer, Refused) else None


def view_costs(costs: Sequence[Cost]) -> list[ConfigChange]:
    """Each change and its cost as operators see it."""
    return [ConfigChange(pool_id=each.pool_id, key=each.key, effect=each.effect) for each in costs]


def view_warnings(loaded: Loaded) -> list[str]:
    """The warnings of a configuration, without the folder of its file."""
    name, folder = loaded.source.name, f"{loaded.source.parent}/"
    return [f"{name}{line.removeprefix(str(loaded.source))}".replace(folder, "") for line in loaded.warnings]


def refuse_restart(costs: Sequence[Cost]) -> Refused | None:
    """The whole is refused, by name of the keys, where one cannot change while the daemon runs."""
    named = ", ".join(str(cost.key) for cost in costs if cost.effect is ChangeEffect.RESTART)
    if not named:
        return None
    message = f"A change of {named} needs a restart of the daemon; nothing was changed."
    return Refused(code=Code.INVALID_PARAMS, reason=Reason.RESTART, message=message)


def _refuse_problems(error: ConfigError, source: Path) -> Refused:
    """The same lines as `orchctl validate` prints, without the folder of the file."""
    lines = [str(problem).replace(f"{source.parent}/", "") for problem in error.problems[:PROBLEMS_SHOWN_MAX]]
    if more := len(error.problems) - len(lines):
        lines.append(f"and {more} more")
    message = f"Nothing was changed: {'; '.join(lines)}."
    return Refused(code=Code.INVALID_PARAMS, reason=Reason.CONFIG, message=message)


def _why(error: OSError | UnsafeStateError) -> str:
    return (error.strerror or "the disk failed") if isinstance(error, OSError) else "its file cannot be trusted"
