"""Simulated GPUs: the grammar of the option, and where they are refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.runtime.gpus import Device, GpuTrouble, Inventory, UnusableDevice
from supervisor.runtime.gpus_simulated import (
    DEVICES_MAX,
    VRAM_GIB_MAX,
    SimulatedGpus,
    SimulationRefusedError,
    SimulationTextError,
    parse_simulated,
    require_no_real_gpu,
)

GROUPS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, VRAM_GIB_MAX)), min_size=1, max_size=4)
NO_LIBRARY = Inventory(kind=GpuTrouble.LIBRARY_MISSING, cause="no library")


@given(GROUPS)
def test_the_text_says_how_many_and_how_large(groups: list[tuple[int, int]]) -> None:
    devices = parse_simulated(",".join(f"{count}x{gib}GiB" for count, gib in groups))

    assert [device.vram_total_mib for device in devices] == [gib * 1024 for count, gib in groups for _ in range(count)]
    assert [device.index for device in devices] == list(range(len(devices)))
    assert len({device.uuid for device in devices}) == len(devices)
    assert all(device.is_simulated for device in devices)


def test_a_simulated_gpu_is_the_same_in_every_run() -> None:
    (device,) = parse_simulated("1x8GiB")

    assert device.uuid == "GPU-5111a7ed-0000-4000-8000-000000000000"
    assert parse_simulated("2x24GiB")[0].uuid == device.uuid


@pytest.mark.parametrize(
    "text",
    [
        *("", "8GiB", "1x8", "1x8GB", "1x8gib", "0x8GiB", "1x0GiB", "-1x8GiB", "1x8GiB,", ",1x8GiB", "1x8GiB 1x8GiB"),
        *(" 1x8GiB", "1x8GiB\n", "1x8.5GiB", "01x8GiB", "1x08GiB", "1X8GiB", "٣x8GiB", "1x8GiB;1x8GiB"),
        *(f"{DEVICES_MAX + 1}x8GiB", "8x8GiB,9x8GiB", f"1x{VRAM_GIB_MAX + 1}GiB", "9999x9999GiB", "1x" + "9" * 5_000),
    ],
)
def test_any_other_text_is_refused_in_one_short_sentence(text: str) -> None:
    with pytest.raises(SimulationTextError) as refused:
        parse_simulated(text)

    assert len(str(refused.value)) < 300


def test_the_bounds_themselves_are_allowed() -> None:
    assert len(parse_simulated(f"{DEVICES_MAX}x{VRAM_GIB_MAX}GiB")) == DEVICES_MAX


async def test_all_of_the_memory_is_free_and_nothing_is_measured() -> None:
    devices = parse_simulated("1x8GiB,1x24GiB")
    inventory = await SimulatedGpus(devices).inventory()

    assert inventory.devices == devices
    assert [inventory.samples[d.uuid].vram_free_mib for d in devices] == [8 * 1024, 24 * 1024]
    assert {inventory.samples[d.uuid].utilization_percent for d in devices} == {None}
    assert inventory.trouble is None


@pytest.mark.orch("ORCH-1101")
@pytest.mark.parametrize(
    "found",
    [
        Inventory(devices=(Device("GPU-aaaa", 0, "NVIDIA Fake 4090", 24_576, (8, 9)),)),
        Inventory(unusable=(UnusableDevice(0, GpuTrouble.GPU_LOST, "GPU 0 fell off the bus"),)),
        *(
            Inventory(kind=kind, cause="some cause")
            for kind in GpuTrouble
            if kind not in {GpuTrouble.LIBRARY_MISSING, GpuTrouble.DRIVER_NOT_LOADED}
        ),
    ],
)
def test_simulation_is_refused_where_nvml_has_a_gpu_or_may_have_one(found: Inventory, tmp_path: Path) -> None:
    with pytest.raises(SimulationRefusedError):
        require_no_real_gpu(found, root=tmp_path)


@pytest.mark.orch("ORCH-1101")
@pytest.mark.parametrize("trace", ["proc/driver/nvidia/gpus/0000:01:00.0", "dev/nvidia0", "dev/nvidia7"])
def test_simulation_is_refused_where_the_kernel_has_a_gpu(trace: str, tmp_path: Path) -> None:
    (tmp_path / trace).mkdir(parents=True)

    with pytest.raises(SimulationRefusedError, match="is present"):
        require_no_real_gpu(NO_LIBRARY, root=tmp_path)


@pytest.mark.parametrize("found", [NO_LIBRARY, Inventory(kind=GpuTrouble.DRIVER_NOT_LOADED, cause="x"), Inventory()])
def test_simulation_is_allowed_where_there_is_none(found: Inventory, tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()

    require_no_real_gpu(found, root=tmp_path)
