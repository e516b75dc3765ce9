"""Blueprints of revisions are drawn out of the configuration that holds when they are done."""

from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.config.load import Loaded
from supervisor.runtime.blueprint import PoolBlueprint
from supervisor.runtime.config_store import ConfigStore
from supervisor.runtime.configuration import Configuration
from supervisor.runtime.drafts import Drafts
from tests.config.texts import MODELS, a_config, a_pool, loaded


class NoReader:
    """Nobody reads a file in these tests."""

    def read(self) -> Loaded:
        raise NotImplementedError

    def parse(self, text: str) -> Loaded:
        raise NotImplementedError


def with_capacity(tasks: int) -> Loaded:
    return loaded(a_config(a_pool(f"queue: {{ capacity: {tasks} }}"), tail=MODELS))


def reading_that(act: Callable[[], None]) -> Callable[[Path], int]:
    """A look into a model file, while the first of which something else happens."""
    looks: list[Path] = []

    def read(path: Path) -> int:
        looks.append(path)
        if len(looks) == 1:
            act()
        return 0

    return read


@pytest.mark.orch("ORCH-3031")
async def test_a_config_that_is_taken_up_while_a_revision_is_drawn_is_the_one_it_is_drawn_from(tmp_path: Path) -> None:
    old, new = with_capacity(9), with_capacity(99)
    configuration = Configuration(old, NoReader(), ConfigStore(tmp_path))
    take_up = reading_that(
        lambda: configuration.take(new, configuration.next_of(new, is_changed=True, is_reverted=False))
    )

    drawn = await Drafts(configuration, take_up, lambda _: None, tmp_path).draw("a", "tiny")

    assert isinstance(drawn, PoolBlueprint)
    assert drawn.plan.queue_capacity == 99
