"""The head of a model file is read once for each state of that file, and never believed of another one."""

import os
from pathlib import Path

import pytest
import yaml

from supervisor import planning
from supervisor.config.known_models import load_known
from supervisor.core.memory_need import PoolNeed
from supervisor.runtime import blueprint
from supervisor.runtime.blueprint import PoolBlueprint
from supervisor.runtime.model_heads import HEADS_MAX, ModelHeads
from supervisor.runtime.needs_reader import NeedsReader
from tests.support.opens import opens_of
from tests.support.pools import a_fake_pool, a_model
from tests.support.tiny_gguf import make_tiny_gguf


def drawn(folder: Path, heads: ModelHeads) -> tuple[PoolBlueprint, PoolNeed]:
    """The pool of `pools.yaml` and its need, as a start draws them."""
    loaded = load_known(folder / "pools.yaml", os.environ, os.geteuid())
    pools = blueprint.draw_pools(loaded.config, loaded.source, heads.kv_bytes_per_token)
    (found,) = NeedsReader(heads, is_simulated=True).with_needs(pools).values()
    assert found.plan.need is not None
    return found, found.plan.need


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pools.yaml").write_text(yaml.safe_dump({"pools": [a_fake_pool()], "models": a_model(tmp_path)}))
    return tmp_path


def test_shape_and_need_of_a_pool_take_one_opening(folder: Path) -> None:
    with opens_of(folder / "tiny.gguf") as opens:
        heads = ModelHeads()
        found, need = drawn(folder, heads)
        again, _ = drawn(folder, heads)

        assert opens() == 1
    assert again.plan == found.plan
    assert found.plan.kv_bytes_per_token > 0
    assert need.cells_per_slot == 512


@pytest.mark.parametrize("how", ["renamed over", "written in place"])
def test_a_file_replaced_at_the_same_path_gives_the_new_figures(folder: Path, how: str) -> None:
    path, heads = folder / "tiny.gguf", ModelHeads()
    make_tiny_gguf(path, embd=64, layers=2)
    before, small = drawn(folder, heads)
    fresh = make_tiny_gguf(folder / "fresh.gguf", embd=64, layers=8)
    if how == "renamed over":
        fresh.replace(path)
    else:
        path.write_bytes(fresh.read_bytes())

    after, large = drawn(folder, heads)

    assert after.plan.kv_bytes_per_token == 4 * before.plan.kv_bytes_per_token > 0
    assert large.devices[0].weights_mib >= small.devices[0].weights_mib


def test_a_file_that_comes_later_is_seen(tmp_path: Path) -> None:
    heads, path = ModelHeads(), tmp_path / "late.gguf"
    before = heads.kv_bytes_per_token(path)
    make_tiny_gguf(path)

    assert (before, heads.kv_bytes_per_token(path) > 0) == (0, True)


def test_what_is_remembered_is_bounded(tmp_path: Path) -> None:
    heads, first = ModelHeads(), make_tiny_gguf(tmp_path / "first.gguf")
    heads.shape_of(first)
    for number in range(HEADS_MAX):
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(b"none")
        heads.shape_of(path)

    with opens_of(first) as opens:
        heads.shape_of(first)
        heads.shape_of(first)

        assert opens() == 1


def test_a_plan_without_a_daemon_opens_the_head_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with opens_of(folder / "tiny.gguf") as opens:
        planning.main(["--config", str(folder / "pools.yaml"), "--simulate-gpus", "1x8GiB"])

        assert opens() == 1
    assert '"fits"' in capsys.readouterr().out
