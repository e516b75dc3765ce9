"""Every example of the project loads as it stands, the spec's own one with the warnings that it deserves."""

from pathlib import Path

import pytest

from supervisor.config.load import load
from supervisor.config.models import CataloguedModel, ModelArtifact
from supervisor.config.schema import known_keys
from supervisor.wire.codes import Engine, FullPolicy, Workload
from tools import fetch_minilm

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("**/*.yaml")), ids=lambda path: path.name)
def test_an_example_loads(path: Path) -> None:
    loaded = load(path)

    assert loaded.config.pools
    assert loaded.source == path


@pytest.mark.orch("ORCH-3030")
def test_the_spec_example_loads_and_says_what_its_pools_still_miss() -> None:
    path = EXAMPLES / "pools.yaml"

    loaded = load(path)

    assert [pool.engine for pool in loaded.config.pools] == [Engine.LLAMACPP, Engine.VLLM, Engine.TGI]
    assert [pool.devices for pool in loaded.config.pools] == [(0,), (1,), (0, 1)]
    assert loaded.config.pools[2].tensor_split == (0.67, 0.33)
    assert loaded.config.pools[2].queue.full_policy == FullPolicy.DROP_LRU
    assert [warning.partition(": ")[0] for warning in loaded.warnings] == [
        f"{path}:{line}" for line in ("4:12", "21:12", "29:12")
    ]


def test_the_demo_has_no_warning_and_keeps_everything_in_one_folder() -> None:
    loaded = load(EXAMPLES / "demo.yaml")

    config = loaded.config
    [pool] = config.pools
    artifact = config.artifact(pool.model)
    demo = EXAMPLES.parent / ".demo"
    assert loaded.warnings == []
    assert artifact is not None
    assert {config.state_dir, config.listen.socket, artifact.path.parent} == {
        demo / "state",
        demo / "control.sock",
        demo / "models",
    }


def test_the_embedding_example_has_no_warning_and_names_the_model_that_is_fetched_for_it() -> None:
    loaded = load(EXAMPLES / "embedding.yaml")

    [pool] = loaded.config.pools
    artifact = loaded.config.artifact(pool.model)
    assert loaded.warnings == []
    assert pool.workloads == (Workload.EMBEDDING,)
    assert artifact is not None
    assert artifact.path == EXAMPLES.parent / ".demo" / "models" / fetch_minilm.MODEL_NAME
    assert artifact.digest == f"sha256:{fetch_minilm.MODEL_SHA256}"


@pytest.mark.orch("ORCH-3035", "ORCH-3036")
def test_the_shared_host_has_tls_a_key_file_and_tenants_and_deserves_no_warning() -> None:
    loaded = load(EXAMPLES / "shared.yaml")

    config = loaded.config
    assert loaded.warnings == []
    assert not config.listen.is_loopback
    assert config.listen.tls is not None
    assert config.auth.keys_file == Path("/etc/orchctl/keys.json")
    assert {name: tenant.weight for name, tenant in config.tenants.items()} == {"website": 3, "research": 1}
    assert config.pools[0].queue.order == "fair"


def test_the_pools_of_the_spec_example_use_only_keys_that_the_schema_offers() -> None:
    words = {
        line.strip(" -").partition(":")[0] for line in (EXAMPLES / "pools.yaml").read_text().splitlines() if ":" in line
    }

    offered = {*known_keys(()), *known_keys(("pools", 0)), *known_keys(("pools", 0, "admission"))}
    assert {word for word in words if word.isidentifier()} <= offered


def test_the_example_of_the_store_misses_only_what_is_pulled_first(tmp_path: Path) -> None:
    path = EXAMPLES / "models.yaml"
    model = CataloguedModel(path=tmp_path / "m.gguf", digest=f"sha256:{'ab' * 32}", root=tmp_path)

    before, after = load(path), load(path, lambda _: {"smollm2": model})

    assert ["smollm2 is not declared" in warning for warning in before.warnings] == [True]
    assert after.warnings == []
    assert after.config.artifact("smollm2") == ModelArtifact(tmp_path / "m.gguf", f"sha256:{'ab' * 32}", tmp_path)
    assert after.config.store.dir == EXAMPLES.parent / "models-store"
