"""Names of engines to their adapters: the one place that knows which engines there are. Adapters hold no state."""

from collections.abc import Mapping

from adapters.base import Adapter
from adapters.llamacpp import LlamaCpp

ADAPTERS: Mapping[str, Adapter] = {adapter.name: adapter for adapter in (LlamaCpp(),)}


def find(name: str) -> Adapter | None:
    """The adapter of an engine by its name in the config, None for an engine that cannot be run yet."""
    return ADAPTERS.get(name)
