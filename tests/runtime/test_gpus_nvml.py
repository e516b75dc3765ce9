"""The NVML reader over the real bindings and a fake driver library, in a process of its own."""

import asyncio
import os
from pathlib import Path

import pytest

from supervisor.runtime.gpus import Device, DeviceSample, GpuSource, GpuTrouble, Inventory, UnusableDevice
from supervisor.runtime.gpus_nvml import NvmlReader
from supervisor.runtime.gpus_simulated import SimulatedGpus, parse_simulated
from tests.support.fake_nvml import FakeGpu, FakeNvml, compile_nvml, nvml, nvml_library
from tests.support.gpu_probe import GpuProbe, read

__all__ = ["nvml", "nvml_library"]

INIT = "nvmlInitWithFlags"
HANDLE = "nvmlDeviceGetHandleByIndex_v2"
MEMORY = "nvmlDeviceGetMemoryInfo"
UTILIZATION = "nvmlDeviceGetUtilizationRates"
CAPABILITY = "nvmlDeviceGetCudaComputeCapability"
SMALL = FakeGpu("GPU-aaaa", 24_576, 1_000, 37, (8, 9), "NVIDIA Fake 4090", lists_processes=True)
LARGE = FakeGpu("GPU-bbbb", 81_920, 5_000, 0, (9, 0), "NVIDIA Fake H100", lists_processes=True)


async def test_every_gpu_is_listed_with_its_figures(nvml: FakeNvml) -> None:
    nvml.set(SMALL, LARGE)
    async with GpuProbe(nvml.env()) as probe:
        inventory = await probe.look()

    assert inventory == Inventory(
        devices=(
            Device("GPU-aaaa", 0, "NVIDIA Fake 4090", 24_576, (8, 9)),
            Device("GPU-bbbb", 1, "NVIDIA Fake H100", 81_920, (9, 0)),
        ),
        samples={
            "GPU-aaaa": DeviceSample(1_000, 23_576, 37, processes=()),
            "GPU-bbbb": DeviceSample(5_000, 76_920, 0, processes=()),
        },
        driver_version="580.00.00",
    )
    assert inventory.trouble is None


async def test_figures_are_read_anew_each_time(nvml: FakeNvml) -> None:
    nvml.set(SMALL)
    async with GpuProbe(nvml.env()) as probe:
        before = await probe.look()
        nvml.set(FakeGpu("GPU-aaaa", 24_576, 20_000, 99, lists_processes=True))
        after = await probe.look()

    assert before.samples["GPU-aaaa"].vram_free_mib == 23_576
    assert after.samples["GPU-aaaa"] == DeviceSample(20_000, 4_576, 99, processes=())


@pytest.mark.orch("ORCH-1101")
async def test_a_driver_without_gpus_is_an_answer_and_not_a_failure(nvml: FakeNvml) -> None:
    async with GpuProbe(nvml.env()) as probe:
        inventory = await probe.look()

    assert inventory == Inventory(driver_version="580.00.00")
    assert inventory.trouble == "no NVIDIA GPU was found"


@pytest.mark.parametrize(
    ("code", "kind", "cause"),
    [
        (4, GpuTrouble.NO_PERMISSION, "may not talk"),
        (9, GpuTrouble.DRIVER_NOT_LOADED, "is not loaded"),
        (10, GpuTrouble.TIMEOUT, "timed out"),
        (12, GpuTrouble.LIBRARY_MISSING, "not installed"),
        (13, GpuTrouble.FUNCTION_MISSING, "too old"),
        (15, GpuTrouble.GPU_LOST, "a GPU fell off the bus"),
        (16, GpuTrouble.RESET_REQUIRED, "a GPU needs a reset"),
        (18, GpuTrouble.VERSION_MISMATCH, "upgraded"),
        (17, GpuTrouble.UNKNOWN, "code 17"),
        (999, GpuTrouble.ACCESS_LOST, "code 999"),
    ],
)
async def test_each_return_code_has_its_word_and_recovers_without_a_restart(
    nvml: FakeNvml, code: int, kind: GpuTrouble, cause: str
) -> None:
    nvml.set(SMALL, returns={INIT: code})
    async with GpuProbe(nvml.env()) as probe:
        failed = await probe.look()
        nvml.set(SMALL)
        recovered = await probe.look()

    assert failed.kind is kind
    assert cause in str(failed.cause)
    assert failed.devices == ()
    assert [device.uuid for device in recovered.devices] == ["GPU-aaaa"]


async def test_access_lost_while_running_is_a_failed_look_and_then_a_fresh_start(nvml: FakeNvml) -> None:
    nvml.set(SMALL)
    async with GpuProbe(nvml.env()) as probe:
        await probe.look()
        nvml.set(SMALL, returns={MEMORY: 999})
        failed = await probe.look()
        nvml.set(LARGE)
        recovered = await probe.look()

    assert failed.kind is GpuTrouble.ACCESS_LOST
    assert [device.uuid for device in recovered.devices] == ["GPU-bbbb"], "only a new nvmlInit lists the GPUs again"


@pytest.mark.parametrize(
    ("function", "code", "kind", "cause"),
    [
        (HANDLE, 15, GpuTrouble.GPU_LOST, "GPU 0 fell off the bus"),
        (MEMORY, 15, GpuTrouble.GPU_LOST, "GPU 0 fell off the bus"),
        (HANDLE, 16, GpuTrouble.RESET_REQUIRED, "GPU 0 needs a reset"),
        (HANDLE, 28, GpuTrouble.NOT_FOUND, "GPU 0 is not there any more"),
        (MEMORY, 3, GpuTrouble.NOT_SUPPORTED, "GPU 0 does not report its memory"),
    ],
)
async def test_one_gpu_in_trouble_leaves_the_others_usable(
    nvml: FakeNvml, function: str, code: int, kind: GpuTrouble, cause: str
) -> None:
    nvml.set(SMALL, LARGE, returns={f"{function}@GPU-aaaa": code})
    async with GpuProbe(nvml.env()) as probe:
        inventory = await probe.look()

    uuid = None if function == HANDLE else "GPU-aaaa"
    assert inventory.unusable == (UnusableDevice(0, kind, cause, uuid),)
    assert [device.uuid for device in inventory.devices] == ["GPU-bbbb"]
    assert inventory.cause is None
    assert inventory.trouble == cause


async def test_gpus_that_change_places_after_a_reset_keep_their_uuid(nvml: FakeNvml) -> None:
    nvml.set(SMALL, LARGE)
    async with GpuProbe(nvml.env()) as probe:
        before = await probe.look()
        nvml.set(LARGE, SMALL, returns={f"{HANDLE}@GPU-aaaa": 15})
        await probe.look()
        nvml.set(LARGE, SMALL)
        after = await probe.look()

    assert {d.uuid: (d.index, d.vram_total_mib) for d in before.devices} == {
        "GPU-aaaa": (0, 24_576),
        "GPU-bbbb": (1, 81_920),
    }
    assert {d.uuid: (d.index, d.vram_total_mib) for d in after.devices} == {
        "GPU-aaaa": (1, 24_576),
        "GPU-bbbb": (0, 81_920),
    }


@pytest.mark.parametrize("function", [UTILIZATION, CAPABILITY])
async def test_a_figure_that_a_gpu_does_not_have_is_left_out(nvml: FakeNvml, function: str) -> None:
    nvml.set(SMALL, returns={function: 3})
    async with GpuProbe(nvml.env()) as probe:
        inventory = await probe.look()

    assert inventory.cause is None
    assert (inventory.samples["GPU-aaaa"].utilization_percent is None) == (function == UTILIZATION)
    assert (inventory.devices[0].compute_capability is None) == (function == CAPABILITY)


@pytest.mark.parametrize("function", [UTILIZATION, CAPABILITY])
async def test_a_library_that_lacks_a_function_costs_that_figure_only(tmp_path: Path, function: str) -> None:
    nvml = FakeNvml(compile_nvml(tmp_path / "old", omit=function), tmp_path / "script")
    nvml.set(SMALL)
    async with GpuProbe(nvml.env()) as probe:
        inventory = await probe.look()

    assert [device.uuid for device in inventory.devices] == ["GPU-aaaa"]
    assert (inventory.samples["GPU-aaaa"].utilization_percent is None) == (function == UTILIZATION)


@pytest.mark.orch("ORCH-1101")
async def test_a_machine_without_the_library_says_so(tmp_path: Path) -> None:
    # An unreadable library earlier on the path hides a real one, so the test says the same on a GPU host.
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    async with GpuProbe({**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}) as probe:
        inventory = await probe.look()

    assert inventory.kind is GpuTrouble.LIBRARY_MISSING
    assert inventory.trouble == "the NVIDIA driver is not installed (libnvidia-ml.so.1 was not found)"


@pytest.mark.parametrize("function", [INIT, MEMORY])
async def test_a_call_that_hangs_never_blocks_the_event_loop(nvml: FakeNvml, function: str) -> None:
    nvml.set(SMALL, hangs=(function,))
    async with GpuProbe(nvml.env(), deadline_s=0.5) as probe:
        look = probe.start_look()
        await probe.ping()
        inventory = read(await look)

    assert probe.answered == ["ping", "look"]
    assert inventory == Inventory(kind=GpuTrouble.TIMEOUT, cause="NVML did not answer within 0.5 s")


async def test_after_three_calls_that_hang_nvml_is_left_alone_until_one_comes_back(nvml: FakeNvml) -> None:
    nvml.set(SMALL, hangs=(MEMORY,))
    async with GpuProbe(nvml.env(), deadline_s=0.1) as probe:
        causes = [(await probe.look()).cause for _ in range(5)]
        nvml.set(SMALL)
        recovered = await _recovered(probe)

    assert causes == [
        *["NVML did not answer within 0.1 s"] * 3,
        *["NVML is left alone until one of 3 calls that hang in it comes back"] * 2,
    ]
    assert [device.uuid for device in recovered.devices] == ["GPU-aaaa"]


async def _recovered(probe: GpuProbe) -> Inventory:
    async with asyncio.timeout(10):
        while (inventory := await probe.look()).cause is not None:
            pass
    return inventory


@pytest.mark.parametrize("source", [NvmlReader(), SimulatedGpus(parse_simulated("2x8GiB"))])
async def test_every_source_keeps_the_promises_of_an_inventory(source: GpuSource) -> None:
    inventory = await source.inventory()
    await source.close()

    _keeps_promises(inventory)


async def test_the_reader_keeps_the_promises_of_an_inventory_with_gpus(nvml: FakeNvml) -> None:
    nvml.set(SMALL, LARGE)
    async with GpuProbe(nvml.env()) as probe:
        inventory = await probe.look()

    _keeps_promises(inventory)


def _keeps_promises(inventory: Inventory) -> None:
    assert (inventory.kind is None) == (inventory.cause is None)
    assert set(inventory.samples) == {device.uuid for device in inventory.devices}
    assert len({device.uuid for device in inventory.devices}) == len(inventory.devices)
    assert not (inventory.cause and (inventory.devices or inventory.unusable))
    for device in inventory.devices:
        sample = inventory.samples[device.uuid]
        assert device.uuid.startswith("GPU-")
        assert 0 <= sample.vram_free_mib <= device.vram_total_mib
        assert sample.vram_used_mib + sample.vram_free_mib <= device.vram_total_mib
