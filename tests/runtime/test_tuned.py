"""Every key that is said to hold for workers that run already does reach them, and no other one does."""

from pathlib import Path

import pytest

from supervisor.config.change_effects import HOST_EFFECTS, POOL_EFFECTS, ChangeEffect
from supervisor.runtime.blueprint import PoolBlueprint, draw_host, draw_revision
from supervisor.runtime.drafts import tuned
from tests.config.texts import MODELS, a_config, a_pool, config_of

OTHER_VALUES = {
    "queue.capacity": "queue: { capacity: 9 }",
    "queue.full_policy": "queue: { full_policy: drop-lru }",
    "queue.order": "queue: { order: fair }",
    "queue.bytes_max": "queue: { bytes_max: 100000000 }",
    "admission.priorities": "admission: { priorities: [{ name: interactive, rate_limit_rps: 3 }] }",
    "timeouts.wall_ms": "timeouts: { wall_ms: 77000 }",
    "timeouts.idle_ms": "timeouts: { idle_ms: 7700 }",
    "timeouts.first_token_ms": "timeouts: { first_token_ms: 7700 }",
    "determinism": "determinism: best_effort",
    "disconnect_grace_ms": "disconnect_grace_ms: 77",
    "launch.load_timeout_ms": "launch: { load_timeout_ms: 77000 }",
    "probe.idle_every_ms": "probe: { idle_every_ms: 77000 }",
    "probe.within_ms": "probe: { within_ms: 7700 }",
}
OF_NO_WORKER = {"preload", "require_same_engine_version"}
"""They have one value only."""
OTHER_BOUNDS = {
    "retention.finished_ms": "retention: { finished_ms: 7000 }",
    "retention.finished_bytes_max": "retention: { finished_bytes_max: 7000000 }",
    "retention.ids_min": "retention: { ids_min: 20000 }",
    "sessions.ttl_ms": "sessions: { ttl_ms: 77000 }",
    "sessions.turns_max": "sessions: { turns_max: 7 }",
    "sessions.max": "sessions: { max: 77 }",
    "tenants": "tenants: { a: { weight: 7 } }",
    "rollout.keep_previous_ms": "rollout: { keep_previous_ms: 7000 }",
}


def drawn(*more: str) -> PoolBlueprint:
    """The first pool of a configuration with these lines."""
    config = config_of(a_config(a_pool(*more), tail=MODELS))
    return draw_revision(config, config.pools[0], "a", config.pools[0].model, Path("/etc/orchctl/pools.yaml"))


def test_the_table_names_every_hot_key_of_a_pool() -> None:
    hot = {key for key, effect in POOL_EFFECTS.items() if effect is ChangeEffect.HOT}

    assert set(OTHER_VALUES) | OF_NO_WORKER == hot


@pytest.mark.parametrize("key", OTHER_VALUES)
def test_a_hot_key_changes_the_plan_of_a_worker_that_runs(key: str) -> None:
    running, new = drawn(), drawn(OTHER_VALUES[key])

    assert tuned(running, new).plan != running.plan


def test_a_key_that_needs_another_worker_does_not() -> None:
    running, new = drawn(), drawn("ctx: 512")

    assert tuned(running, new).plan == running.plan


@pytest.mark.parametrize("key", OTHER_BOUNDS)
def test_a_hot_key_of_the_daemon_changes_the_bounds_of_the_core(key: str) -> None:
    plain = config_of(a_config(tail=MODELS))
    other = config_of(a_config(tail=MODELS + OTHER_BOUNDS[key] + "\n"))

    assert HOST_EFFECTS[key] is ChangeEffect.HOT
    assert draw_host(other) != draw_host(plain)
