"""What `nvidia-smi -q -x` writes, with the tags of a driver of branch 580, and a program of its name that writes it."""

from collections.abc import Mapping
from pathlib import Path

FIGURES = {
    "product_name": "NVIDIA Fake 4090",
    "persistence_mode": "Enabled",
    "uuid": "GPU-a",
    "gpu_recovery_action": "None",
    "pcie_gen/current_link_gen": "3",
    "link_widths/current_link_width": "8x",
    "fb_memory_usage/total": "24576 MiB",
    "fb_memory_usage/free": "14576 MiB",
    "utilization/gpu_util": "40 %",
    "ecc_mode/current_ecc": "Enabled",
    "volatile/sram_correctable": "3",
    "volatile/sram_uncorrectable_parity": "0",
    "volatile/sram_uncorrectable_secded": "1",
    "volatile/sram_threshold_exceeded": "No",
    "volatile/dram_correctable": "4",
    "volatile/dram_uncorrectable": "0",
    "aggregate/sram_correctable": "0",
    "aggregate/sram_uncorrectable_parity": "10",
    "aggregate/dram_correctable": "70",
    "aggregate/dram_uncorrectable": "0",
    "remapped_rows/remapped_row_corr": "4",
    "remapped_rows/remapped_row_unc": "5",
    "remapped_rows/remapped_row_pending": "Yes",
    "remapped_rows/remapped_row_failure": "No",
    "temperature/gpu_temp": "61 C",
    "gpu_power_readings/instant_power_draw": "312.50 W",
}
_GROUPS = {
    "pcie_gen": "pci/pci_gpu_link_info/pcie_gen",
    "link_widths": "pci/pci_gpu_link_info/link_widths",
    "volatile": "ecc_errors/volatile",
    "aggregate": "ecc_errors/aggregate",
}


def a_page(*gpus: Mapping[str, str], driver: str = "580.00.00") -> bytes:
    """The document; each GPU has `FIGURES` but for what it is given, and `id` is its bus id."""
    blocks = "\n".join(_gpu({"id": "00000000:3B:00.0", **FIGURES, **given}) for given in gpus)
    head = '<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">\n'
    body = f"<driver_version>{driver}</driver_version><attached_gpus>{len(gpus)}</attached_gpus>{blocks}"
    return f"{head}<nvidia_smi_log>{body}</nvidia_smi_log>".encode()


def _gpu(figures: Mapping[str, str]) -> str:
    lines = []
    for name, value in figures.items():
        group, _, tag = name.rpartition("/")
        if name != "id":
            lines.append(_nested([*_GROUPS.get(group, group).split("/"), tag], value))
    processes = "<process_info><pid>4711</pid><type>C</type></process_info>"
    processes += "<process_info><pid>1</pid><type>G</type></process_info>"
    return f'<gpu id="{figures["id"]}">{"".join(lines)}<processes>{processes}</processes></gpu>'


def _nested(tags: list[str], value: str) -> str:
    for tag in reversed([tag for tag in tags if tag]):
        value = f"<{tag}>{value}</{tag}>"
    return value


def install_smi(folder: Path, page: bytes) -> Path:
    """A folder for PATH, with a program `nvidia-smi` that writes this page whatever it is asked."""
    folder.mkdir(exist_ok=True)
    program = folder / "nvidia-smi"
    (folder / "page.xml").write_bytes(page)
    program.write_text('#!/bin/sh\nexec cat "$(dirname "$0")/page.xml"\n')
    program.chmod(0o755)
    return folder
