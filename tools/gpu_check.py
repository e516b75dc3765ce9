"""`make gpu-check`: what the daemon sees of a real NVIDIA GPU, compared with nvidia-smi. Says so and ends elsewhere."""

import asyncio
import json
import shutil
import subprocess
import sys

from supervisor.runtime.gpus import Inventory
from supervisor.runtime.gpus_nvml import NvmlReader

VRAM_TOLERANCE_MIB = 64
QUERY = "uuid,index,memory.total"


async def look() -> Inventory:
    """One inventory through NVML, as the daemon takes it."""
    reader = NvmlReader()
    try:
        return await reader.inventory()
    finally:
        await reader.close()


def ask_nvidia_smi() -> dict[str, tuple[int, int]]:
    """Index and total memory (MiB) by UUID."""
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    rows = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip().splitlines()
    cells = [[cell.strip() for cell in row.split(",")] for row in rows]
    return {uuid: (int(index), int(total)) for uuid, index, total in cells}


def main() -> int:
    """Print a JSON report; 0 where everything agrees, 1 where it does not, 0 with a loud word where there is no GPU."""
    inventory = asyncio.run(look())
    if not inventory.devices or shutil.which("nvidia-smi") is None:
        print(f"gpu-check SKIPPED: {inventory.trouble or 'nvidia-smi is not installed'}")
        return 0
    smi = ask_nvidia_smi()
    findings = [
        f"{device.uuid}: NVML says index {device.index}, {device.vram_total_mib} MiB; nvidia-smi {smi.get(device.uuid)}"
        for device in inventory.devices
        if device.uuid not in smi
        or smi[device.uuid][0] != device.index
        or abs(smi[device.uuid][1] - device.vram_total_mib) > VRAM_TOLERANCE_MIB
    ]
    devices = {device.uuid: f"{device.name}, {device.vram_total_mib} MiB" for device in inventory.devices}
    print(json.dumps({"devices": devices, "nvidia_smi": len(smi), "findings": findings}, indent=2))
    return 1 if findings or len(smi) != len(inventory.devices) else 0


if __name__ == "__main__":
    sys.exit(main())
