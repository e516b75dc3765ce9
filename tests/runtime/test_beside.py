"""Draft models, projectors and adapters: read, held and watched as a model is (ORCH-3037), and counted (ORCH-3020)."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from supervisor.config.known_models import load_known
from supervisor.config.models import ModelArtifact
from supervisor.core.memory_need import PoolNeed
from supervisor.runtime import blueprint
from supervisor.runtime.beside import find_changed, identity_of, paths_beside
from supervisor.runtime.blueprint import PoolBlueprint
from supervisor.runtime.model_files import ModelFileError, ModelFiles
from supervisor.runtime.model_heads import ModelHeads
from supervisor.runtime.needs_reader import NeedsReader
from supervisor.store.digests import model_digest, read_sha256
from supervisor.store.holding import is_held
from supervisor.store.parts import open_model
from tests.support.pools import a_fake_pool, a_model
from tests.support.tiny_gguf import make_tiny_gguf

WORKER = ("pool", 1)


def drawn(folder: Path, *flags: str, **env: str) -> PoolBlueprint:
    """A pool whose command names more files."""
    pool = a_fake_pool()
    launch: dict[str, Any] = {**pool["launch"], "command": [*pool["launch"]["command"], *flags]}
    launch["env"] = {**launch["env"], **env}
    path = folder / "pools.yaml"
    path.write_text(yaml.safe_dump({"pools": [{**pool, "launch": launch}], "models": a_model(folder)}))
    loaded = load_known(path, os.environ, os.geteuid())
    (found,) = blueprint.draw_pools(loaded.config, loaded.source).values()
    return found


def need_of(pool: PoolBlueprint) -> PoolNeed:
    need = NeedsReader(ModelHeads(), is_simulated=True).need_of(pool)
    assert need is not None
    return need


def artifact(path: Path) -> ModelArtifact:
    with open_model(path, None) as parts:
        return ModelArtifact(path, model_digest([(part.name, read_sha256(part.fd)) for part in parts]))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + b"a" * 900)
    (tmp_path / "d.gguf").write_bytes(b"GGUF" + b"d" * 900)
    return path


@pytest.mark.orch("ORCH-3020")
@pytest.mark.parametrize("how", ["flag", "variable"])
def test_a_draft_by_a_relative_name_is_found_where_the_engine_finds_it_and_counted(tmp_path: Path, how: str) -> None:
    alone = need_of(drawn(tmp_path))
    make_tiny_gguf(tmp_path / "draft.gguf", embd=256, layers=8)
    with_draft = (
        drawn(tmp_path, "-md", "draft.gguf")
        if how == "flag"
        else drawn(tmp_path, LLAMA_ARG_SPEC_DRAFT_MODEL="draft.gguf")
    )

    need = need_of(with_draft)

    assert paths_beside(with_draft, is_simulated=True) == (tmp_path / "draft.gguf",)
    assert need.devices[0].weights_mib > alone.devices[0].weights_mib
    assert need.devices[0].kv_mib > alone.devices[0].kv_mib


@pytest.mark.orch("ORCH-3039")
def test_what_was_learned_with_one_draft_says_nothing_of_a_larger_one(tmp_path: Path) -> None:
    make_tiny_gguf(tmp_path / "draft.gguf", layers=2)
    pool = drawn(tmp_path, "-md", "draft.gguf")
    before, again = need_of(pool), need_of(pool)
    make_tiny_gguf(tmp_path / "draft.gguf", layers=8)

    after = need_of(pool)

    assert before.recipe == again.recipe != after.recipe


@pytest.mark.orch("ORCH-3037")
async def test_the_files_beside_a_model_are_read_and_held_with_it(model: Path) -> None:
    files, draft = ModelFiles(), model.with_name("d.gguf")
    await files.verify(artifact(model), WORKER, (draft,))
    with draft.open("rb") as file:
        sha256, held = read_sha256(file.fileno()), is_held(file.fileno())
        found = dict(files.beside(WORKER))
        files.release(WORKER)
        is_free = not is_held(file.fileno())

    assert (held, is_free) == (True, True)
    assert found == {identity_of(draft.stat()): sha256}
    assert files.beside(WORKER) == {}


@pytest.mark.orch("ORCH-3037")
async def test_a_file_beside_the_model_that_is_swapped_while_it_loads_is_found(model: Path) -> None:
    files, draft = ModelFiles(), model.with_name("d.gguf")
    await files.verify(artifact(model), WORKER, (draft,))
    twin = model.with_name("twin")
    twin.write_bytes(draft.read_bytes())
    twin.replace(draft)

    with pytest.raises(ModelFileError, match=r"d\.gguf was replaced while the engine loaded it"):
        await files.prove_loaded(WORKER, os.getpid())
    files.release(WORKER)


async def test_a_file_beside_the_model_that_is_not_there_is_the_cause(model: Path) -> None:
    with pytest.raises(ModelFileError, match=r"file gone\.gguf beside the model: No such file"):
        await ModelFiles().verify(artifact(model), WORKER, (model.with_name("gone.gguf"),))


@pytest.mark.parametrize("change", ["none", "replaced", "gone"])
def test_what_is_no_longer_the_file_of_the_start_is_named(model: Path, change: str) -> None:
    draft = model.with_name("d.gguf")
    then = (identity_of(draft.stat()),)
    if change == "replaced":
        model.with_name("x").write_bytes(b"x")
        model.with_name("x").replace(draft)
    elif change == "gone":
        draft.unlink()

    assert find_changed((draft,), then) == (None if change == "none" else "d.gguf")
