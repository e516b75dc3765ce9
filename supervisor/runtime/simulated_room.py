"""What workers would hold on simulated GPUs: each takes its need, so that pools compete there as in earnest."""

from supervisor.core.lifecycle import Phase
from supervisor.core.replicas import Replica
from supervisor.core.state import State
from supervisor.runtime.gpus import GpuProcess

_HOLDING = (Phase.SPAWNING, Phase.LOADING, Phase.INSPECTING, Phase.TESTING, Phase.READY, Phase.STOPPING)


def occupants(state: State) -> dict[str, tuple[GpuProcess, ...]]:
    """The processes on each device, by UUID."""
    found: dict[str, list[GpuProcess]] = {}
    for replica in state.replicas.values():
        if replica.pid is not None and replica.phase in _HOLDING:
            for uuid, mib in _held(state, replica):
                found.setdefault(uuid, []).append(GpuProcess(replica.pid, mib))
    return {uuid: tuple(processes) for uuid, processes in found.items()}


def _held(state: State, replica: Replica) -> tuple[tuple[str, int], ...]:
    """What it was promised; an adopted engine was promised nothing and takes its estimate."""
    if replica.claims or replica.plan.need is None:
        return replica.claims
    totals = {device.uuid: device.vram_total_mib for device in state.devices.seen}
    pairs = zip(replica.devices, replica.plan.need.devices, strict=False)
    return tuple((uuid, need.on(totals.get(uuid, 0))) for uuid, need in pairs)
