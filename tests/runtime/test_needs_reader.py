"""Recipes: the names under which needs are learned."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from supervisor.config.known_models import load_known
from supervisor.core.memory_need import PoolNeed
from supervisor.runtime import blueprint
from supervisor.runtime.model_heads import ModelHeads
from supervisor.runtime.needs_reader import SIMULATED_MARK, NeedsReader
from tests.support.pools import a_fake_pool, a_model


def need_of(folder: Path, *, is_simulated: bool, **fields: Any) -> PoolNeed:
    path = folder / "pools.yaml"
    path.write_text(yaml.safe_dump({"pools": [a_fake_pool(**fields)], "models": a_model(folder)}))
    loaded = load_known(path, os.environ, os.geteuid())
    (drawn,) = blueprint.draw_pools(loaded.config, loaded.source, lambda _: 0).values()
    need = NeedsReader(ModelHeads(), is_simulated=is_simulated).need_of(drawn)
    assert need is not None
    return need


@pytest.mark.orch("ORCH-3039")
def test_what_simulated_gpus_teach_has_other_names_than_what_real_ones_teach(tmp_path: Path) -> None:
    real, pretended = (need_of(tmp_path, is_simulated=flag) for flag in (False, True))

    assert real.devices == pretended.devices
    assert pretended.recipe.startswith(SIMULATED_MARK)
    assert not real.recipe.startswith(SIMULATED_MARK)


def test_the_same_pool_has_the_same_recipe_and_another_context_another(tmp_path: Path) -> None:
    one, again, other = (need_of(tmp_path, is_simulated=False, ctx=ctx).recipe for ctx in (512, 512, 1024))

    assert one == again != other
