"""GPUs that deny an answer while others give one: what is known of them stands, and nobody else pays for it."""

import pytest

from supervisor.runtime.gpus import GpuTrouble
from tests.support.fake_nvml import FakeGpu, FakeMig, FakeNvml, nvml, nvml_library
from tests.support.gpu_probe import GpuProbe

__all__ = ["nvml", "nvml_library"]

HANDLE = "nvmlDeviceGetHandleByIndex_v2"
MEMORY = "nvmlDeviceGetMemoryInfo"
DENIALS = [(4, "may not talk"), (8, "code 8"), (10, "timed out"), (11, "code 11"), (999, "code 999")]
SMALL = FakeGpu("GPU-aaaa", 24_576, 1_000, 37, processes=((4242, 900),))
LARGE = FakeGpu("GPU-bbbb", 81_920, 5_000, lists_processes=True)
OF_SMALL = (f"{HANDLE}@GPU-aaaa", f"{MEMORY}@GPU-aaaa")


@pytest.mark.parametrize("function", OF_SMALL)
@pytest.mark.parametrize(("code", "cause"), DENIALS)
async def test_a_gpu_that_never_answered_cannot_be_used_and_the_other_can(
    nvml: FakeNvml, function: str, code: int, cause: str
) -> None:
    nvml.set(SMALL, LARGE, returns={function: code})
    async with GpuProbe(nvml.env()) as probe:
        found = await probe.look()

    assert found.cause is None
    assert [device.uuid for device in found.devices] == ["GPU-bbbb"]
    assert [(each.index, each.cause.startswith("GPU 0: "), cause in each.cause) for each in found.unusable] == [
        (0, True, True)
    ]


@pytest.mark.parametrize("function", OF_SMALL)
@pytest.mark.parametrize(("code", "cause"), DENIALS)
async def test_a_gpu_that_answered_before_keeps_its_figures_as_old_ones(
    nvml: FakeNvml, function: str, code: int, cause: str
) -> None:
    nvml.set(SMALL, LARGE)
    async with GpuProbe(nvml.env()) as probe:
        before = await probe.look()
        nvml.set(SMALL, LARGE, returns={function: code})
        looks = [await probe.look() for _ in range(3)]
        nvml.set(SMALL, LARGE)
        after = await probe.look()

    for found in looks:
        assert (found.cause, found.unusable) == (None, ())
        assert found.devices == before.devices
        assert found.samples["GPU-aaaa"].vram_used_mib == 1_000
        assert found.samples["GPU-aaaa"].processes is None, "who holds its memory now is not known"
        assert [(each.uuid, cause in each.cause) for each in found.unread] == [("GPU-aaaa", True)]
        assert cause in str(found.trouble)
    assert (after.samples, after.unread, after.trouble) == (before.samples, (), None)


async def test_a_gpu_that_was_lost_has_no_old_figures_to_stand_for_it(nvml: FakeNvml) -> None:
    nvml.set(SMALL, LARGE)
    async with GpuProbe(nvml.env()) as probe:
        await probe.look()
        nvml.set(SMALL, LARGE, returns={f"{MEMORY}@GPU-aaaa": 15})
        await probe.look()
        nvml.set(SMALL, LARGE, returns={f"{MEMORY}@GPU-aaaa": 4})
        found = await probe.look()

    assert [device.uuid for device in found.devices] == ["GPU-bbbb"]
    assert [each.kind for each in found.unusable] == [GpuTrouble.NO_PERMISSION]


async def test_where_every_gpu_denies_an_answer_the_look_says_nothing(nvml: FakeNvml) -> None:
    nvml.set(SMALL, LARGE)
    async with GpuProbe(nvml.env()) as probe:
        await probe.look()
        nvml.set(SMALL, LARGE, returns={MEMORY: 4})
        found = await probe.look()

    assert (found.kind, found.devices, found.unread) == (GpuTrouble.NO_PERMISSION, (), ())


@pytest.mark.parametrize("code", [1, 9, 18])
async def test_what_is_about_the_driver_spoils_the_look_for_all(nvml: FakeNvml, code: int) -> None:
    nvml.set(SMALL, LARGE)
    async with GpuProbe(nvml.env()) as probe:
        await probe.look()
        nvml.set(SMALL, LARGE, returns={f"{MEMORY}@GPU-aaaa": code})
        found = await probe.look()

    assert found.cause is not None
    assert found.devices == ()


async def test_a_gpu_that_denies_an_answer_keeps_its_mig_instances(nvml: FakeNvml) -> None:
    divided = FakeGpu("GPU-aaaa", facts={"mig": 1}, migs=(FakeMig("MIG-1"),), lists_processes=True)
    nvml.set(divided, LARGE)
    async with GpuProbe(nvml.env()) as probe:
        await probe.look()
        nvml.set(divided, LARGE, returns={f"{MEMORY}@GPU-aaaa": 999})
        found = await probe.look()

    assert [device.uuid for device in found.devices] == ["GPU-aaaa", "MIG-1", "GPU-bbbb"]


async def test_a_gpu_in_another_place_is_not_taken_for_the_one_that_was_there(nvml: FakeNvml) -> None:
    """Only a new start of NVML takes on the new order, and only trouble makes it start anew."""
    nvml.set(SMALL, LARGE)
    async with GpuProbe(nvml.env()) as probe:
        await probe.look()
        nvml.set(LARGE, SMALL, returns={MEMORY: 999})
        await probe.look()
        nvml.set(LARGE, SMALL, returns={f"{MEMORY}@GPU-bbbb": 4})
        found = await probe.look()

    assert {device.uuid: device.index for device in found.devices} == {"GPU-aaaa": 1, "GPU-bbbb": 0}
    assert [each.uuid for each in found.unread] == ["GPU-bbbb"]


@pytest.mark.parametrize("count", [1, 3])
async def test_a_count_of_gpus_that_is_not_the_number_of_gpus_spoils_nothing(nvml: FakeNvml, count: int) -> None:
    nvml.set(SMALL, LARGE)
    async with GpuProbe(nvml.env()) as probe:
        await probe.look()
        nvml.set(SMALL, LARGE, count=count)
        found = await probe.look()
        nvml.set(SMALL, LARGE)
        after = await probe.look()

    assert [device.uuid for device in found.devices] == ["GPU-aaaa", "GPU-bbbb"][:count]
    assert [each.index for each in found.unusable] == list(range(2, count))
    assert [device.uuid for device in after.devices] == ["GPU-aaaa", "GPU-bbbb"]


async def test_a_gpu_whose_place_another_one_took_is_not_taken_for_that_one(nvml: FakeNvml) -> None:
    """GPU 1 denies even its name, and the one that was there is GPU 0 now."""
    nvml.set(SMALL, LARGE)
    async with GpuProbe(nvml.env()) as probe:
        await probe.look()
        nvml.set(LARGE, SMALL, returns={"nvmlDeviceGetCount_v2": 999})
        await probe.look()
        nvml.set(LARGE, SMALL, returns={f"{HANDLE}@GPU-aaaa": 4})
        found = await probe.look()

    assert [device.uuid for device in found.devices] == ["GPU-bbbb"]
    assert [(each.index, each.uuid) for each in found.unusable] == [(1, None)]
    assert found.unread == ()
