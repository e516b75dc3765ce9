"""A difference names the pools that are added, removed or changed, and nothing that stayed."""

from supervisor.config.change_effects import HOST_EFFECTS, POOL_EFFECTS
from supervisor.config.diff import (
    DaemonChanged,
    PoolAdded,
    PoolChanged,
    PoolRemoved,
    daemon_paths,
    diff,
    pool_paths,
)
from tests.config.texts import DIGEST, MODELS, OTHER_DIGEST, a_config, a_pool, config_of

OLD = config_of(a_config(a_pool(), a_pool(id="b", model="big"), tail=MODELS))


def test_equal_configs_have_no_difference_whatever_the_order_of_their_pools() -> None:
    swapped = config_of(a_config(a_pool(id="b", model="big"), a_pool(), tail=MODELS))

    assert diff(OLD, OLD) == ()
    assert diff(OLD, swapped) == ()


def test_pools_come_and_go_by_id() -> None:
    new = config_of(a_config(a_pool(), a_pool(id="c", model="big"), tail=MODELS))

    assert diff(OLD, new) == (PoolRemoved("b"), PoolAdded("c"))


def test_a_changed_pool_names_its_changed_keys_and_the_other_is_left_out() -> None:
    new = config_of(a_config(a_pool("ctx: 8", "queue: { capacity: 9 }"), a_pool(id="b", model="big"), tail=MODELS))

    assert diff(OLD, new) == (PoolChanged("a", ("ctx", "queue.capacity")),)


def test_another_file_behind_the_same_name_changes_the_pools_that_use_it() -> None:
    new = config_of(a_config(a_pool(), a_pool(id="b", model="big"), tail=MODELS.replace(DIGEST, OTHER_DIGEST)))

    assert diff(OLD, new) == (PoolChanged("a", ("model",)),)


def test_another_program_of_the_engine_changes_the_launch_of_pools_without_their_own() -> None:
    own = a_pool("launch: { binary: mine }", id="b", model="big")
    old = config_of(a_config(a_pool(), own, tail=MODELS))
    new = config_of(a_config(a_pool(), own, tail=MODELS + "engines: { llamacpp: { binary: x } }\n"))

    assert diff(old, new) == (PoolChanged("a", ("launch.binary",)),)


def test_keys_of_the_daemon_are_a_change_of_their_own() -> None:
    new = config_of(
        a_config(a_pool(), a_pool(id="b", model="big"), tail=MODELS + "durability: normal\nlisten: { port: 0 }\n")
    )

    assert diff(OLD, new) == (DaemonChanged(("durability", "listen.port")),)


def test_another_grace_of_all_streams_changes_the_pools_without_their_own() -> None:
    own = a_pool("disconnect_grace_ms: 7", id="b", model="big")
    old = config_of(a_config(a_pool(), own, tail=MODELS))
    new = config_of(a_config(a_pool(), own, tail=MODELS + "stream: { disconnect_grace_ms: 9 }\n"))

    assert diff(old, new) == (
        PoolChanged("a", ("disconnect_grace_ms",)),
        DaemonChanged(("stream.disconnect_grace_ms",)),
    )


def test_every_key_of_the_config_has_one_known_effect_when_it_changes() -> None:
    assert set(POOL_EFFECTS) == set(pool_paths())
    assert set(HOST_EFFECTS) == set(daemon_paths())
