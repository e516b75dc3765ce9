"""An upgrade of the driver under the reader: the library that the package brings is taken in the same process."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.runtime.gpus import GpuTrouble, Inventory
from tests.support.fake_nvml import SONAME, FakeGpu, FakeNvml, compile_nvml
from tests.support.gpu_probe import GpuProbe

MEMORY = "nvmlDeviceGetMemoryInfo"
GPU = FakeGpu("GPU-aaaa", lists_processes=True)
OLD, NEW, NEWEST = "570.86.10", "580.95.05", "590.44.01"

Install = Callable[[Path, str], None]


def put_file(folder: Path, version: str) -> None:
    """As where the library is one file: a new one is renamed over it."""
    compile_nvml(folder / version, of_driver=version).joinpath(SONAME).replace(folder / SONAME)


def put_link(folder: Path, version: str) -> None:
    """As the packages do it: a file by its version, a link that is turned, the former file removed."""
    link = folder / SONAME
    former = link.resolve() if link.is_symlink() else None
    compile_nvml(folder / version, of_driver=version).joinpath(SONAME).replace(folder / f"libnvidia-ml.so.{version}")
    (folder / "new").symlink_to(f"libnvidia-ml.so.{version}")
    (folder / "new").replace(link)
    if former is not None:
        former.unlink()


@pytest.mark.orch("ORCH-1101")
@pytest.mark.parametrize("install", [put_file, put_link])
async def test_the_new_library_is_taken_without_a_restart_and_again_at_the_next_upgrade(
    tmp_path: Path, install: Install
) -> None:
    nvml = FakeNvml(tmp_path, tmp_path / "script")
    install(tmp_path, OLD)
    async with GpuProbe(nvml.env()) as probe:
        seen = [await _look(probe, nvml, OLD)]
        for version in (NEW, NEWEST):
            seen += [await _look(probe, nvml, version), await _look(probe, nvml, version)]
            install(tmp_path, version)
            seen += [await _look(probe, nvml, version), await _look(probe, nvml, version)]

    mismatch = [GpuTrouble.VERSION_MISMATCH] * 3
    assert [each.kind for each in seen] == [None, *mismatch, None, *mismatch, None]
    assert [each.driver_version for each in seen if each.kind is None] == [OLD, NEW, NEWEST]
    assert [each.devices for each in seen if each.kind is None] == [seen[0].devices] * 3


async def _look(probe: GpuProbe, nvml: FakeNvml, module: str) -> Inventory:
    nvml.set(GPU, driver=module)
    return await probe.look()


async def test_a_driver_that_is_taken_back_gets_its_own_library_again(tmp_path: Path) -> None:
    nvml = FakeNvml(tmp_path, tmp_path / "script")
    folders = [compile_nvml(tmp_path / version, of_driver=version) for version in (OLD, NEW)]
    seen = []
    async with GpuProbe(nvml.env()) as probe:
        for folder in (*folders, *folders):
            (tmp_path / "new").symlink_to(folder / SONAME)
            (tmp_path / "new").replace(tmp_path / SONAME)
            seen.append([(await _look(probe, nvml, folder.name)).driver_version for _ in range(2)])

    assert seen == [[OLD, OLD], [None, NEW], [None, OLD], [None, NEW]]


async def test_a_library_that_cannot_be_loaded_leaves_the_old_one(tmp_path: Path) -> None:
    nvml = FakeNvml(tmp_path, tmp_path / "script")
    put_file(tmp_path, OLD)
    async with GpuProbe(nvml.env()) as probe:
        await _look(probe, nvml, OLD)
        (tmp_path / SONAME).unlink()
        (tmp_path / SONAME).write_text("half a library")
        kinds = [(await _look(probe, nvml, NEW)).kind for _ in range(2)]
        put_file(tmp_path, NEW)
        kinds += [(await _look(probe, nvml, NEW)).kind for _ in range(2)]

    assert kinds == [*[GpuTrouble.VERSION_MISMATCH] * 3, None]


async def test_a_look_that_hangs_keeps_the_library_it_is_in(tmp_path: Path) -> None:
    """Its handles are the old library's; only when it is back is there another library."""
    nvml = FakeNvml(tmp_path, tmp_path / "script")
    put_file(tmp_path, OLD)
    nvml.set(GPU, driver=OLD, hangs=(MEMORY,))
    async with GpuProbe(nvml.env(), deadline_s=1.0) as probe:
        kinds = [(await probe.look()).kind]
        put_file(tmp_path, NEW)
        nvml.set(GPU, driver=NEW, hangs=(MEMORY,))
        kinds += [(await probe.look()).kind for _ in range(2)]
        nvml.set(GPU, driver=NEW)
        async with asyncio.timeout(10):
            while (await probe.look()).kind is not None:
                pass

    assert kinds == [GpuTrouble.TIMEOUT, GpuTrouble.VERSION_MISMATCH, GpuTrouble.VERSION_MISMATCH]
