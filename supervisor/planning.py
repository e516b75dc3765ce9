"""`python -m supervisor.planning`: the memory plan of a config file, without a daemon, as JSON on standard output.

It decides as the daemon does at its start: the same core, given the inventory of the real or the simulated GPUs, is
asked what it would begin. Exit codes: 0 a plan, 78 the config or the GPUs cannot be used.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import structs

from supervisor.config.known_models import load_known
from supervisor.config.problems import ConfigError, is_denied
from supervisor.core.conductor import Conductor
from supervisor.core.events import DeviceSeen, DevicesSeen
from supervisor.runtime import blueprint, host_memory
from supervisor.runtime.gpus import Device, Inventory
from supervisor.runtime.gpus_nvml import NvmlReader
from supervisor.runtime.gpus_simulated import SimulatedGpus, SimulationTextError, parse_simulated
from supervisor.runtime.model_heads import ModelHeads
from supervisor.runtime.needs_reader import NeedsReader
from supervisor.runtime.plan_desk import plan_memory
from supervisor.wire.plan import MemoryPlan
from supervisor.wire.pools import DeviceView

EXIT_CONFIG = 78
EXIT_NOT_PERMITTED = 77


def main(argv: Sequence[str] | None = None) -> None:
    """Print the plan and exit."""
    parser = argparse.ArgumentParser(prog="orchctl plan", description="What a config needs of memory.")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--simulate-gpus", metavar="2x24GiB")
    arguments = parser.parse_args(argv)
    try:
        plan = asyncio.run(_plan(arguments.config, arguments.simulate_gpus))
    except (ConfigError, SimulationTextError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(EXIT_NOT_PERMITTED if isinstance(error, ConfigError) and is_denied(error) else EXIT_CONFIG)
    sys.stdout.write(msgspec.json.encode(plan).decode() + "\n")


async def _plan(path: Path, simulated: str | None) -> MemoryPlan:
    loaded = load_known(path, os.environ, os.geteuid())
    reader = NvmlReader() if simulated is None else SimulatedGpus(parse_simulated(simulated))
    try:
        inventory = await reader.inventory()
    finally:
        await reader.close()
    heads = ModelHeads()
    drawn = blueprint.draw_pools(loaded.config, loaded.source, heads.kv_bytes_per_token)
    drawn = NeedsReader(heads, is_simulated=simulated is not None).with_needs(drawn)
    core = Conductor(tuple(each.plan for each in drawn.values()), blueprint.draw_host(loaded.config))
    core.handle(DevicesSeen(tuple(_seen(each) for each in inventory.devices)), 0.0)
    plan = plan_memory(core.state, _views(inventory), simulated, host_free_mib=host_memory.look().free_mib)
    return structs.replace(plan, offline=True, gpu_cause=inventory.trouble)


def _seen(device: Device) -> DeviceSeen:
    return DeviceSeen(
        device.uuid,
        device.index,
        device.name,
        device.vram_total_mib,
        parent=device.mig.parent if device.mig else None,
        is_divided=device.is_divided,
        compute_capability=device.compute_capability,
    )


def _views(inventory: Inventory) -> dict[str, DeviceView]:
    return {
        device.uuid: DeviceView(
            uuid=device.uuid,
            index=device.index,
            name=device.name,
            vram_total_mib=device.vram_total_mib,
            vram_used_mib=inventory.samples[device.uuid].vram_used_mib,
            vram_free_mib=inventory.samples[device.uuid].vram_free_mib,
            utilization_percent=None,
            pools=[],
        )
        for device in inventory.devices
    }


if __name__ == "__main__":
    main()
