"""Whether each worker has the GPUs of its mask: there, and withheld for nothing (ORCH-3011). Starts nothing itself."""

from supervisor.core.events import DeviceSeen, DevicesSeen, DevicesUnknown
from supervisor.core.lifecycle import Phase, Signal
from supervisor.core.replicas import Replica, Wanted
from supervisor.core.state import State
from supervisor.core.workers import give


def note_devices(state: State, event: DevicesSeen, now_ms: float) -> None:
    """A complete inventory: every worker has its devices, or has not."""
    state.devices.seen, state.devices.is_known = event.devices, True
    state.gpu_cause = None if event.devices else "no NVIDIA GPU was found"
    place_all(state, now_ms)
    for home in state.sets.values():
        home.rank()


def place_all(state: State, now_ms: float) -> None:
    """Tell every worker whether it has its devices: after an inventory, and when one is withheld or given back."""
    if not state.devices.is_known:
        return
    for replica in state.replicas.values():
        if replica.wanted is Wanted.HALT:
            continue
        missing = _place(replica, state.devices.seen) or _withheld(state, replica)
        signal = Signal.DEVICES_FOUND if missing is None else Signal.DEVICES_MISSING
        give(state, replica, signal, now_ms, missing)


def _withheld(state: State, replica: Replica) -> str | None:
    causes = (state.devices.cause_of(uuid) for uuid in replica.devices)
    return next((cause for cause in causes if cause is not None), None)


def _place(replica: Replica, devices: tuple[DeviceSeen, ...]) -> str | None:
    """Resolve the mask to UUIDs once, and follow those from then on; gives what is missing."""
    by_name: dict[int | str, str] = {device.index: device.uuid for device in devices}
    by_name.update({device.uuid: device.uuid for device in devices})
    wanted: tuple[int | str, ...] = replica.devices or replica.plan.devices
    missing = [str(name) for name in wanted if name not in by_name]
    if missing:
        return f"GPU {', '.join(missing)} is not there ({len(devices)} found)"
    replica.devices = tuple(by_name[name] for name in wanted)
    replica.vram_free_mib = min(each.vram_free_mib for each in devices if each.uuid in replica.devices)
    return None


def note_devices_unknown(state: State, event: DevicesUnknown, now_ms: float) -> None:
    """No inventory: workers that have not begun wait for one. One lost answer never touches a healthy worker."""
    state.gpu_cause = event.cause
    for replica in state.replicas.values():
        if replica.phase is Phase.IDLE:
            give(state, replica, Signal.DEVICES_MISSING, now_ms, event.cause)
        elif replica.phase is Phase.UNPLACED:
            replica.cause = event.cause
