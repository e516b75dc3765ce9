"""A look of the daemon against a page of nvidia-smi: what agrees, what differs, and what neither of them knows."""

from dataclasses import replace
from typing import Any

import pytest

from supervisor.runtime.gpus import Device, DeviceSample, Health, Inventory, Place
from tests.tools.smi_page import FIGURES, a_page
from tools.gpu_checks import compare
from tools.gpu_verdicts import Verdict
from tools.nvidia_smi import SmiError, parse

HEALTH = Health(
    temperature_c=61,
    power_w=312.5,
    is_persistent=True,
    pcie_gen=3,
    pcie_width=8,
    has_ecc=True,
    ecc_single_volatile=7,
    ecc_double_volatile=1,
    ecc_single_aggregate=70,
    ecc_double_aggregate=10,
    rows_remapped_correctable=4,
    rows_remapped_uncorrectable=5,
    rows_pending=True,
    rows_failed=False,
    recovery_action=0,
)


def a_device(uuid: str = "GPU-a", index: int = 0, bus_id: str | None = "00000000:3B:00.0") -> Device:
    return Device(uuid, index, "NVIDIA Fake 4090", 24_576, (8, 9), place=Place(bus_id))


def a_look(*devices: Device, **health: Any) -> Inventory:
    """A look at these devices, one where none is named."""
    devices = devices or (a_device(),)
    sample = DeviceSample(10_000, 14_576, 40, replace(HEALTH, **health))
    return Inventory(devices, (), {device.uuid: sample for device in devices}, "580.00.00")


def verdicts(found: Inventory, *gpus: dict[str, str], driver: str = "580.00.00") -> list[Verdict]:
    return list(compare(found, parse(a_page(*(gpus or ({},)), driver=driver))))


def names_of(found: list[Verdict], outcome: str) -> list[str]:
    return [each.name for each in found if each.outcome == outcome]


def test_two_looks_that_agree_pass_every_check() -> None:
    found = verdicts(a_look())

    assert names_of(found, "passed") == [each.name for each in found]
    assert len(found) == 20


@pytest.mark.parametrize(
    ("said", "check"),
    [
        ({"fb_memory_usage/total": "24000 MiB"}, "vram total GPU-a"),
        ({"fb_memory_usage/free": "20000 MiB"}, "vram free GPU-a"),
        ({"id": "00000000:4B:00.0"}, "bus_id GPU-a"),
        ({"temperature/gpu_temp": "30 C"}, "temperature_c GPU-a"),
        ({"persistence_mode": "Disabled"}, "is_persistent GPU-a"),
        ({"ecc_mode/current_ecc": "Disabled"}, "has_ecc GPU-a"),
        ({"volatile/dram_correctable": "5"}, "ecc_single_volatile GPU-a"),
        ({"volatile/sram_uncorrectable_parity": "5"}, "ecc_double_volatile GPU-a"),
        ({"aggregate/sram_correctable": "1"}, "ecc_single_aggregate GPU-a"),
        ({"aggregate/dram_uncorrectable": "1"}, "ecc_double_aggregate GPU-a"),
        ({"remapped_rows/remapped_row_corr": "9"}, "rows_remapped_correctable GPU-a"),
        ({"remapped_rows/remapped_row_unc": "9"}, "rows_remapped_uncorrectable GPU-a"),
        ({"remapped_rows/remapped_row_pending": "No"}, "rows_pending GPU-a"),
        ({"remapped_rows/remapped_row_failure": "Yes"}, "rows_failed GPU-a"),
        ({"gpu_recovery_action": "Reset"}, "recovery_action GPU-a"),
    ],
)
def test_what_differs_fails_its_check_alone(said: dict[str, str], check: str) -> None:
    assert names_of(verdicts(a_look(), said), "failed") == [check]


@pytest.mark.parametrize("name", [name for name in HEALTH.__dataclass_fields__ if getattr(HEALTH, name) is not None])
def test_a_figure_that_nvidia_smi_knows_must_not_be_null(name: str) -> None:
    found = verdicts(a_look(**{name: None}))
    (failure,) = (each for each in found if each.outcome == "failed")

    assert failure.name == f"{name} GPU-a"
    assert failure.detail.startswith("null, but nvidia-smi says ")


@pytest.mark.parametrize("said", [{"temperature/gpu_temp": "70 C"}, {"fb_memory_usage/free": "14400 MiB"}])
def test_what_moves_between_two_looks_may_differ_a_little(said: dict[str, str]) -> None:
    assert names_of(verdicts(a_look(), said), "failed") == []


def test_figures_that_neither_knows_are_skipped() -> None:
    counts = [name for name in HEALTH.__dataclass_fields__ if name.startswith(("ecc_", "rows_"))]
    unknown = {name: "N/A" for name in FIGURES if name.startswith(("volatile/", "aggregate/", "remapped_rows/"))}
    found = verdicts(a_look(**dict.fromkeys([*counts, "recovery_action"])), {**unknown, "gpu_recovery_action": ""})

    assert names_of(found, "failed") == []
    assert names_of(found, "skipped") == [*(f"{name} GPU-a" for name in counts), "recovery_action GPU-a"]


SECOND = {"uuid": "GPU-b", "id": "00000000:9B:00.0"}


@pytest.mark.parametrize(
    ("gpus", "driver"),
    [
        ((SECOND, {}), "580.00.00"),
        (({}, SECOND), "570.00"),
        (({},), "580.00.00"),
        (({}, {**SECOND, "uuid": "GPU-c"}), "580.00.00"),
    ],
)
def test_another_order_number_name_or_driver_fails_the_inventory(gpus: tuple[dict[str, str], ...], driver: str) -> None:
    two = a_look(a_device(), a_device("GPU-b", 1, "00000000:9B:00.0"))

    assert names_of(verdicts(two, *gpus, driver=driver), "failed") == ["inventory"]


def test_what_nvidia_smi_says_is_read_in_our_units() -> None:
    (gpu,) = parse(a_page({"temperature/gpu_temp": "[N/A]", "gpu_power_readings/instant_power_draw": "N/A"})).gpus

    assert (gpu.uuid, gpu.vram_total_mib, gpu.pcie_width, gpu.utilization_percent) == ("GPU-a", 24_576, 8, 40)
    assert (gpu.ecc_single_volatile, gpu.ecc_double_volatile, gpu.ecc_double_aggregate) == (7, 1, 10)
    assert (gpu.rows_pending, gpu.rows_failed, gpu.recovery_action) == (True, False, "none")
    assert (gpu.temperature_c, gpu.power_w, gpu.pids) == (None, None, (4711,))


def test_an_older_nvidia_smi_is_read_too() -> None:
    unknown = {name: "N/A" for name in FIGURES if name.startswith(("volatile/", "aggregate/", "gpu_power"))}
    old = {
        **unknown,
        "power_readings/power_draw": "70.10 W",
        "ecc_errors/volatile/single_bit/total": "9",
        "ecc_errors/aggregate/double_bit/total": "2",
    }
    (gpu,) = parse(a_page(old)).gpus

    assert (gpu.power_w, gpu.ecc_single_volatile, gpu.ecc_double_aggregate) == (70.1, 9, 2)


def test_what_is_no_xml_is_an_error_in_one_sentence() -> None:
    with pytest.raises(SmiError, match="nvidia-smi did not write XML"):
        parse(b"NVIDIA-SMI has failed")
