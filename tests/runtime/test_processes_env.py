"""The environment of an engine: an allow-list."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.runtime.processes_env import SpawnError, SpawnOrder, SpawnTrouble, engine_environ
from tests.runtime.processes_story import GPU

NAMES = st.text(st.characters(codec="ascii", categories=["Lu", "Nd"], include_characters="_"), min_size=1, max_size=20)


def _order(env: dict[str, str] | None = None, devices: tuple[str, ...] = (GPU,)) -> SpawnOrder:
    return SpawnOrder("pool-a", ("engine",), env or {}, devices, Path("/"), Path("/log"))


@given(st.dictionaries(NAMES, st.text(max_size=20)))
def test_of_the_daemons_environment_an_engine_sees_only_its_search_paths(daemon: dict[str, str]) -> None:
    env = engine_environ(_order(), daemon=daemon, mark="m")

    fixed = {"ORCHCTL_WORKER", "CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "LANG", "HOME", "PATH"}
    assert fixed <= set(env) <= fixed | {"LD_LIBRARY_PATH"}


def test_an_engine_has_its_devices_by_uuid_and_nothing_by_chance() -> None:
    env = engine_environ(
        _order({"OMP_WAIT_POLICY": "PASSIVE"}, ("GPU-a", "GPU-b")),
        daemon={"PATH": "/opt/bin", "LD_LIBRARY_PATH": "/opt/cuda/lib64", "HOME": "/root", "LANG": "de_DE", "KEY": "s"},
        mark="host.1234",
    )

    assert env == {
        "ORCHCTL_WORKER": "host.1234",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b",
        "LANG": "C.UTF-8",
        "HOME": "/nonexistent",
        "PATH": "/opt/bin",
        "LD_LIBRARY_PATH": "/opt/cuda/lib64",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


@pytest.mark.orch("ORCH-1101", "ORCH-3018")
@pytest.mark.parametrize(
    "order",
    [
        _order(devices=()),
        _order({"GGML_CUDA_ENABLE_UNIFIED_MEMORY": "1"}),
        _order({"CUDA_VISIBLE_DEVICES": "0"}),
        _order({"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}),
        _order({"ORCHCTL_WORKER": "x"}),
    ],
)
def test_what_would_run_elsewhere_than_on_its_gpus_is_refused(order: SpawnOrder) -> None:
    with pytest.raises(SpawnError) as refused:
        engine_environ(order, daemon={}, mark="m")

    assert refused.value.kind is SpawnTrouble.REFUSED
