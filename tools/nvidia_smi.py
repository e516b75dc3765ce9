"""What `nvidia-smi -q -x` says of a host's GPUs, in the units of the daemon. Reads; compares nothing.

What nvidia-smi does not know (`N/A`), and what an older one has no tag for, is None.
"""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from xml.etree import ElementTree as ET

COMMAND = ("nvidia-smi", "-q", "-x")
ANSWER_S_MAX = 60
_UNKNOWN = frozenset({"", "n/a", "[n/a]", "requested functionality has been deprecated"})


class SmiError(Exception):
    """nvidia-smi gave no answer that can be read. One sentence."""


@dataclass(frozen=True, slots=True)
class SmiGpu:
    """One GPU. Sizes are MiB, `index` is its place in the list; `pids` lists the compute processes."""

    uuid: str
    index: int
    name: str | None
    bus_id: str | None
    vram_total_mib: int | None
    vram_free_mib: int | None
    utilization_percent: int | None
    temperature_c: int | None
    power_w: float | None
    is_persistent: bool | None
    pcie_gen: int | None
    pcie_width: int | None
    has_ecc: bool | None
    ecc_single_volatile: int | None
    ecc_double_volatile: int | None
    ecc_single_aggregate: int | None
    ecc_double_aggregate: int | None
    rows_remapped_correctable: int | None
    rows_remapped_uncorrectable: int | None
    rows_pending: bool | None
    rows_failed: bool | None
    recovery_action: str | None
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SmiHost:
    """All GPUs, in its order."""

    driver_version: str | None
    gpus: tuple[SmiGpu, ...]


def ask() -> SmiHost:
    """Run nvidia-smi and read what it says. Raises SmiError."""
    try:
        ran = subprocess.run(COMMAND, capture_output=True, check=True, timeout=ANSWER_S_MAX)
    except (OSError, subprocess.SubprocessError) as error:
        raise SmiError(f"nvidia-smi could not be asked: {error}") from error
    return parse(ran.stdout)


def parse(xml: bytes) -> SmiHost:
    """Read its document. Raises SmiError."""
    try:
        root = ET.fromstring(xml)
    except ET.ParseError as error:
        raise SmiError(f"nvidia-smi did not write XML: {error}") from error
    gpus = tuple(_gpu(index, element) for index, element in enumerate(root.findall("gpu")))
    return SmiHost(_text(root, "driver_version"), gpus)


def _gpu(index: int, gpu: ET.Element) -> SmiGpu:
    links, memory, rows = "pci/pci_gpu_link_info", "fb_memory_usage", "remapped_rows"
    pids = (_number(process, "pid") for process in gpu.findall("processes/process_info") if _is_compute(process))
    return SmiGpu(
        uuid=_text(gpu, "uuid") or "",
        index=index,
        name=_text(gpu, "product_name"),
        bus_id=gpu.get("id"),
        vram_total_mib=_number(gpu, f"{memory}/total"),
        vram_free_mib=_number(gpu, f"{memory}/free"),
        utilization_percent=_number(gpu, "utilization/gpu_util"),
        temperature_c=_number(gpu, "temperature/gpu_temp"),
        power_w=_power(gpu),
        is_persistent=_flag(gpu, "persistence_mode"),
        pcie_gen=_number(gpu, f"{links}/pcie_gen/current_link_gen"),
        pcie_width=_number(gpu, f"{links}/link_widths/current_link_width"),
        has_ecc=_flag(gpu, "ecc_mode/current_ecc"),
        ecc_single_volatile=_ecc(gpu, "volatile", "correctable"),
        ecc_double_volatile=_ecc(gpu, "volatile", "uncorrectable"),
        ecc_single_aggregate=_ecc(gpu, "aggregate", "correctable"),
        ecc_double_aggregate=_ecc(gpu, "aggregate", "uncorrectable"),
        rows_remapped_correctable=_number(gpu, f"{rows}/remapped_row_corr"),
        rows_remapped_uncorrectable=_number(gpu, f"{rows}/remapped_row_unc"),
        rows_pending=_flag(gpu, f"{rows}/remapped_row_pending"),
        rows_failed=_flag(gpu, f"{rows}/remapped_row_failure"),
        recovery_action=_recovery(gpu),
        pids=tuple(pid for pid in pids if pid is not None),
    )


def _text(element: ET.Element, path: str) -> str | None:
    text = (element.findtext(path) or "").strip()
    return None if text.lower() in _UNKNOWN else text


def _figure(element: ET.Element, path: str) -> float | None:
    """A number before its unit, as in `81559 MiB`, `16x`, `71.20 W`."""
    text = _text(element, path)
    try:
        return None if text is None else float(text.split()[0].rstrip("x"))
    except ValueError:
        return None


def _number(element: ET.Element, path: str) -> int | None:
    value = _figure(element, path)
    return None if value is None else int(value)


def _flag(element: ET.Element, path: str) -> bool | None:
    return {"enabled": True, "yes": True, "disabled": False, "no": False}.get((_text(element, path) or "").lower())


def _power(gpu: ET.Element) -> float | None:
    """Drivers of several years, under several names."""
    paths = ("gpu_power_readings/instant_power_draw", "gpu_power_readings/power_draw", "power_readings/power_draw")
    return next((value for path in paths if (value := _figure(gpu, path)) is not None), None)


def _ecc(gpu: ET.Element, since: str, kind: str) -> int | None:
    """All counts of a kind added up: SRAM and DRAM, or what older GPUs name by single and double bits."""
    old = {"correctable": "single_bit", "uncorrectable": "double_bit"}[kind]
    total = _number(gpu, f"ecc_errors/{since}/{old}/total")
    if total is not None:
        return total
    names: tuple[Callable[[str], bool], ...] = (
        lambda tag: tag.startswith(f"sram_{kind}"),
        lambda tag: tag == f"dram_{kind}",
    )
    found = [
        _number(gpu, f"ecc_errors/{since}/{each.tag}")
        for each in gpu.findall(f"ecc_errors/{since}/*")
        if any(is_wanted(each.tag) for is_wanted in names)
    ]
    known = [count for count in found if count is not None]
    return sum(known) if known else None


def _recovery(gpu: ET.Element) -> str | None:
    """`None` is the action's own name here: nothing is to be done."""
    return (gpu.findtext("gpu_recovery_action") or "").strip().lower() or None


def _is_compute(process: ET.Element) -> bool:
    return "C" in (process.findtext("type") or "")
