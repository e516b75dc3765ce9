"""Every figure of a GPU over the real bindings, MIG instances, events, and that the fake library has what is called."""

import ast
import subprocess
from dataclasses import fields, replace
from pathlib import Path

import pynvml
import pytest

from supervisor.runtime import gpus_nvml_events, gpus_nvml_figures, gpus_nvml_session
from supervisor.runtime.gpus import Device, DeviceSample, GpuProcess, Health, MigPart, Place
from tests.support.fake_nvml import EVENTS, SONAME, FakeGpu, FakeMig, FakeNvml, compile_nvml, nvml, nvml_library
from tests.support.gpu_probe import GpuProbe

__all__ = ["nvml", "nvml_library"]

FACTS = {
    "bus_id": "0000FFFF:3B:00.0",
    "pcie_gen": 3,
    "pcie_gen_max": 5,
    "pcie_width": 8,
    "pcie_width_max": 16,
    "numa": 1,
    "cpus": "f0",
    "temperature": 61,
    "power_mw": 312_500,
    "persistence": 1,
    "ecc": 1,
    "events": EVENTS,
}
FIELDS = {3: 7, 4: 1, 5: 70, 6: 10, 29: 2, 30: 3, 31: 1, 142: 4, 143: 5, 144: 1, 145: 0, 230: 4}
LINKS = {0: "00000000:9B:00.0"}
RICH = FakeGpu("GPU-rich", facts=FACTS, fields=FIELDS, processes=((4_711, 512), (4_712, -1)), links=LINKS)
POOR = FakeGpu("GPU-poor")
DIVIDED = replace(
    RICH,
    facts={**FACTS, "mig": 1},
    migs=(FakeMig("MIG-a", 9_856, 100, 7, 0), FakeMig("MIG-b", 19_968, 0, 2, 1)),
    mig_processes=(("MIG-b", 99, 300),),
)
PCI = "nvmlDeviceGetPciInfo_v3"
READERS = (gpus_nvml_figures, gpus_nvml_session, gpus_nvml_events)


async def test_every_figure_that_a_gpu_reports_is_read(nvml: FakeNvml) -> None:
    nvml.set(RICH)
    async with GpuProbe(nvml.env()) as probe:
        inventory = await probe.look()

    (device,) = inventory.devices
    sample = inventory.samples["GPU-rich"]
    assert device.place == Place("0000FFFF:3B:00.0", 5, 16, 1, (4, 5, 6, 7), ("00000000:9B:00.0",))
    assert sample.health == Health(61, 312.5, True, 3, 8, True, 7, 1, 70, 10, 2, 3, True, 4, 5, True, False, 4)
    assert sample.processes == (GpuProcess(4_711, 512), GpuProcess(4_712, None))


async def test_a_gpu_that_reports_nothing_else_still_counts(nvml: FakeNvml) -> None:
    nvml.set(POOR)
    async with GpuProbe(nvml.env()) as probe:
        inventory = await probe.look()

    assert inventory.devices == (Device("GPU-poor", 0, "NVIDIA Fake 4090", 24_576, (8, 9)),)
    assert inventory.samples["GPU-poor"] == DeviceSample(0, 24_576, 0, Health(), None)


@pytest.mark.parametrize("code", [3, 4, 6, 13, 17, 999])
async def test_a_denied_figure_is_none_whatever_the_reason(nvml: FakeNvml, code: int) -> None:
    nvml.set(RICH, returns=dict.fromkeys(("nvmlDeviceGetTemperature", "nvmlDeviceGetFieldValues", PCI), code))
    async with GpuProbe(nvml.env()) as probe:
        inventory = await probe.look()

    health = inventory.samples["GPU-rich"].health
    assert (health.temperature_c, health.recovery_action, health.power_w) == (None, None, 312.5)
    assert inventory.trouble is None


async def test_a_gpu_that_is_lost_while_its_figures_are_read_is_lost(nvml: FakeNvml) -> None:
    nvml.set(RICH, POOR, returns={"nvmlDeviceGetTemperature@GPU-rich": 15})
    async with GpuProbe(nvml.env()) as probe:
        inventory = await probe.look()

    assert [device.uuid for device in inventory.devices] == ["GPU-poor"]
    assert inventory.unusable[0].uuid == "GPU-rich"


async def test_mig_instances_are_devices_with_their_own_memory_and_processes(nvml: FakeNvml) -> None:
    nvml.set(DIVIDED)
    async with GpuProbe(nvml.env()) as probe:
        inventory = await probe.look()

    whole, first, second = inventory.devices
    assert whole.is_divided
    assert (first.uuid, first.vram_total_mib, first.mig) == ("MIG-a", 9_856, MigPart("GPU-rich", 7, 0))
    assert (second.uuid, second.vram_total_mib, second.mig) == ("MIG-b", 19_968, MigPart("GPU-rich", 2, 1))
    assert inventory.samples["MIG-a"].vram_free_mib == 9_756
    assert inventory.samples["MIG-b"].processes == (GpuProcess(99, 300),)


async def test_a_mig_instance_that_vanishes_leaves_the_others(nvml: FakeNvml) -> None:
    nvml.set(DIVIDED, returns={"nvmlDeviceGetMemoryInfo@MIG-a": 28})
    async with GpuProbe(nvml.env()) as probe:
        inventory = await probe.look()

    assert [device.uuid for device in inventory.devices] == ["GPU-rich", "MIG-b"]


async def test_a_slow_driver_is_waited_for_within_the_deadline(nvml: FakeNvml) -> None:
    nvml.set(POOR, delays_ms={"nvmlDeviceGetMemoryInfo": 50})
    async with GpuProbe(nvml.env()) as probe:
        inventory = await probe.look()

    assert inventory.devices


def _called() -> set[str]:
    """The functions of the bindings that the readers name."""
    found: set[str] = set()
    for module in READERS:
        assert module.__file__ is not None
        for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
            if isinstance(node, ast.Attribute) and node.attr.startswith("nvml") and node.attr[4].isupper():
                found.add(node.attr)
    return {name for name in found if callable(getattr(pynvml, name, None))} - {"NVMLError"}


def _symbols(name: str) -> set[str]:
    """What a function of the bindings looks up in the library, itself or through those that it calls."""
    source = Path(pynvml.__file__).read_text()
    functions = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    if name not in functions:  # a record
        return set()
    function = functions[name]
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    found = {
        ast.literal_eval(call.args[0])
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "_nvmlGetFunctionPointer"
    }
    for call in calls:
        if isinstance(call.func, ast.Name) and call.func.id.startswith("nvml") and call.func.id[4].isupper():
            found |= _symbols(call.func.id)
    return found - {"nvmlDeviceGetMemoryInfo_v2"}


def test_the_fake_library_has_every_function_that_the_readers_reach(nvml_library: Path) -> None:
    listed = subprocess.run(["nm", "-D", str(nvml_library / SONAME)], capture_output=True, text=True, check=True).stdout
    has = {line.split()[-1] for line in listed.splitlines() if " T " in line}
    wanted = set().union(*(_symbols(name) for name in _called() if name != "nvmlStructToFriendlyObject"))

    assert len(wanted) > 25
    assert wanted <= has


@pytest.mark.parametrize(
    "omitted",
    [
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetPciInfo_v3",
        "nvmlDeviceGetNvLinkState",
        "nvmlDeviceGetCpuAffinity",
        "nvmlSystemGetDriverVersion",
    ],
)
async def test_an_old_library_costs_the_figure_alone(tmp_path: Path, omitted: str) -> None:
    nvml = FakeNvml(compile_nvml(tmp_path / "old", omit=omitted), tmp_path / "script")
    nvml.set(RICH)
    async with GpuProbe(nvml.env()) as probe:
        inventory = await probe.look()

    assert [device.uuid for device in inventory.devices] == ["GPU-rich"]
    assert inventory.trouble is None


def test_no_figure_is_without_a_test() -> None:
    assert len(fields(Health)) == 18
