"""What a valid config means: defaults, resolved paths, model references, limits and programs."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from supervisor.config.models import ModelArtifact
from supervisor.config.pool import ClassLimits
from supervisor.wire.codes import Determinism, Priority
from tests.config.texts import DIGEST, MODELS, OTHER_DIGEST, a_config, a_pool, config_of, loaded, problems_of


def test_what_is_not_said_has_the_documented_default() -> None:
    config = config_of(a_config())

    [pool] = config.pools
    assert (config.durability, config.mode, config.listen.host, config.listen.port) == (
        "full",
        "strict",
        "127.0.0.1",
        8090,
    )
    assert (pool.queue.capacity, pool.queue.full_policy, pool.slots) == (256, "reject", 1)
    assert (pool.timeouts.wall_ms, pool.timeouts.idle_ms, pool.timeouts.first_token_ms) == (600_000, 30_000, None)
    assert (pool.determinism, pool.sampler_profile_version, pool.preload) == (Determinism.STRICT, "v1", True)
    assert config.retention.ids_min == 10_000


def test_a_config_is_frozen() -> None:
    config = config_of(a_config())

    with pytest.raises(ValidationError, match="frozen"):
        config.pools[0].slots = 4


def test_a_short_wall_shortens_the_default_of_idle() -> None:
    config = config_of(a_config(a_pool("timeouts: { wall_ms: 1000 }")))

    assert config.pools[0].timeouts.idle_ms == 1000


def test_a_class_has_its_own_limits_or_those_of_the_pool() -> None:
    priorities = "admission: { priorities: [{ name: batch, queue_capacity: 4, rate_limit_rps: 0.5 }] }"
    pool = config_of(a_config(a_pool("queue: { capacity: 8 }", priorities))).pools[0]

    assert pool.limits_of(Priority.BATCH) == ClassLimits(queue_capacity=4, rate_limit_rps=0.5, burst=1.0)
    assert pool.limits_of(Priority.INTERACTIVE) == ClassLimits(queue_capacity=8, rate_limit_rps=None, burst=None)


@pytest.mark.parametrize(
    "devices",
    [
        "[0, 1]",
        "[GPU-8932f937-d72c-4106-c12f-20bd9faed9f6]",
        "[MIG-8932f937-d72c-4106-c12f-20bd9faed9f6]",
        "[MIG-GPU-8932f937-d72c-4106-c12f-20bd9faed9f6/1/0]",
    ],
)
def test_devices_are_indices_or_uuids(devices: str) -> None:
    assert problems_of(a_config(a_pool(devices=devices))) == []


@pytest.mark.orch("ORCH-3012")
@pytest.mark.parametrize("split", ["[0.67, 0.33]", "[0.99, 0.02]", "[0.5, 0.49]", "[0.5, 0.5]"])
def test_ratios_may_miss_one_by_a_hundredth(split: str) -> None:
    assert problems_of(a_config(a_pool(f"tensor_split: {split}", devices="[0, 1]"))) == []


@pytest.mark.parametrize(
    ("engine", "more"),
    [("llamacpp", ["slots: 4", "determinism: best_effort"]), ("vllm", ["slots: 4"])],
)
def test_several_slots_are_fine_where_nothing_strict_is_promised(engine: str, more: list[str]) -> None:
    assert problems_of(a_config(a_pool(*more, engine=engine))) == []


def test_paths_start_at_the_folder_of_the_file() -> None:
    tail = (
        "state_dir: ../state\nlog_dir: /var/log/x\nlisten: { socket: run/c.sock }\n"
        "engines: { llamacpp: { binary: bin/llama } }\n" + MODELS
    )
    config = config_of(a_config(tail=tail))

    assert config.state_dir == Path("/etc/state")
    assert config.log_dir == Path("/var/log/x")
    assert config.listen.socket == Path("/etc/orchctl/run/c.sock")
    assert config.models["tiny"].path == Path("/etc/orchctl/tiny.gguf")
    assert config.binary(config.pools[0]) == "/etc/orchctl/bin/llama"


def test_the_program_of_a_pool_comes_before_that_of_its_engine_and_a_bare_name_stays_one() -> None:
    engines = "engines: { llamacpp: { binary: llama-server } }\n"
    config = config_of(a_config(a_pool(), a_pool("launch: { binary: ./mine }", id="b"), tail=engines))

    assert [config.binary(pool) for pool in config.pools] == ["llama-server", "/etc/orchctl/mine"]


@pytest.mark.orch("ORCH-3037")
def test_a_model_is_found_by_its_name_and_by_its_digest() -> None:
    config = config_of(a_config(tail=MODELS + f"  other: {{ path: o.gguf, digest: '{OTHER_DIGEST}' }}\n"))

    tiny = ModelArtifact(Path("/etc/orchctl/tiny.gguf"), DIGEST)
    assert config.artifact("tiny") == tiny
    assert config.artifact(DIGEST) == tiny
    assert config.artifact("unknown") is None
    assert config.model_refs("tiny") == config.model_refs(DIGEST) == {"tiny", DIGEST}
    assert config.model_refs("unknown") == {"unknown"}


def test_a_digest_as_key_needs_no_other() -> None:
    config = config_of(a_config(a_pool(model=DIGEST), tail=f"models: {{ '{DIGEST}': {{ path: m.gguf }} }}\n"))

    assert config.artifact(DIGEST) == ModelArtifact(Path("/etc/orchctl/m.gguf"), DIGEST)


def test_pools_of_different_sets_may_differ_in_policy() -> None:
    other = a_pool("ctx: 4096", "queue: { full_policy: drop-lru }", id="b")

    assert problems_of(a_config(a_pool("ctx: 2048"), other)) == []


def test_pools_whose_digest_is_still_open_are_no_replicas_yet() -> None:
    other = a_pool("queue: { full_policy: drop-lru }", id="b", model="sha256:...")

    assert problems_of(a_config(a_pool(model="sha256:..."), other)) == []


@pytest.mark.orch("ORCH-3007")
def test_replicas_that_say_the_same_in_another_order_agree() -> None:
    one = "admission: { priorities: [{ name: interactive }, { name: batch, rate_limit_rps: 5 }] }"
    two = "admission: { priorities: [{ name: batch, rate_limit_rps: 5 }] }"

    assert problems_of(a_config(a_pool(one), a_pool(two, id="b"))) == []


def test_the_grace_of_a_pool_comes_before_that_of_the_daemon() -> None:
    config = config_of(a_config(a_pool(), a_pool("disconnect_grace_ms: 0", id="b")))

    assert [config.grace_ms(pool) for pool in config.pools] == [5000, 0]


def test_braces_that_are_no_placeholder_are_left_alone() -> None:
    command = """launch: { command: [x, '--port={port}', '--json={"a": {"b": 1}}', '{}'] }"""

    assert problems_of(a_config(a_pool(command))) == []


def test_an_undeclared_or_elided_model_is_only_a_warning() -> None:
    result = loaded(a_config(a_pool(), a_pool(id="b", model="sha256:..."), a_pool(id="c", model="sha256:...")))

    assert [warning.split(": ")[1] for warning in result.warnings] == [f"/pools/{index}/model" for index in range(3)]


@pytest.mark.parametrize(
    ("host", "count"), [("0.0.0.0", 1), ("'::'", 1), ("localhost", 0), ("'::1'", 0), ("127.0.0.9", 0)]
)
def test_a_door_open_to_others_is_a_warning(host: str, count: int) -> None:
    result = loaded(a_config(tail=f"listen: {{ host: {host} }}\n" + MODELS))

    assert len(result.warnings) == count
