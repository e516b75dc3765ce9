"""The blueprints of all workers, by the key of the worker. It grows and shrinks while the daemon runs.

A pool has one blueprint for each of its revisions that is there. Decides nothing about when one comes or goes.
"""

from collections.abc import Iterator, Mapping

from supervisor.runtime.blueprint import PoolBlueprint


class Blueprints(Mapping[str, PoolBlueprint]):
    """Who holds it sees every change at once. Used on the event loop only."""

    def __init__(self, drawn: Mapping[str, PoolBlueprint]) -> None:
        self._drawn = dict(drawn)

    def __getitem__(self, key: str) -> PoolBlueprint:
        return self._drawn[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._drawn)

    def __len__(self) -> int:
        return len(self._drawn)

    def put(self, blueprint: PoolBlueprint) -> None:
        """Take in a worker's blueprint, in place of one with the same key."""
        self._drawn[blueprint.plan.pool_id] = blueprint

    def drop(self, key: str) -> None:
        """The worker is gone for good. Harmless for an unknown key."""
        self._drawn.pop(key, None)

    def of_pool(self, pool_id: str) -> list[PoolBlueprint]:
        """The blueprints of all revisions of one pool."""
        return [each for each in self._drawn.values() if each.plan.public_id == pool_id]
