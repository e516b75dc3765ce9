"""What is true of memory after every event (ORCH-3003). The simulation and the state machines check it."""

from supervisor.core.lifecycle import Phase
from supervisor.core.replicas import Replica
from supervisor.core.state import State

_TAKING = (Phase.SPAWNING, Phase.LOADING, Phase.INSPECTING, Phase.TESTING)
_WITH_PROCESS = (*_TAKING, Phase.READY, Phase.STOPPING)


def memory_violations(state: State) -> list[str]:
    """No device is promised twice, and who has no process is promised nothing."""
    found = [
        f"{key} has no process, is {each.phase} and was promised {each.claims}"
        for key, each in state.replicas.items()
        if each.claims and each.phase not in _WITH_PROCESS
    ]
    for device in state.devices.seen:
        taken = {key: mib for key, each in state.replicas.items() if (mib := _taken(each, device.uuid))}
        if 0 < device.vram_total_mib < sum(taken.values()):
            found.append(f"{device.uuid} has {device.vram_total_mib} MiB, taken or promised are {taken}")
    return found


def _taken(replica: Replica, uuid: str) -> int:
    """What a worker was seen to hold; until it has loaded, at least what it was promised."""
    if replica.phase not in _WITH_PROCESS:
        return 0
    held = dict(zip(replica.devices, replica.held, strict=False)).get(uuid, 0)
    claim = sum(mib for name, mib in replica.claims if name == uuid)
    return max(held, claim) if replica.phase in _TAKING else held
