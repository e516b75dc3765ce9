"""Whether each worker has the GPUs of its mask: there, and withheld for nothing (ORCH-3011). Starts nothing itself."""

from supervisor.core.devices import DeviceLedger
from supervisor.core.events import DeviceSeen, DevicesSeen, DevicesUnknown
from supervisor.core.lifecycle import Phase, Signal
from supervisor.core.replicas import Replica, Wanted
from supervisor.core.state import State
from supervisor.core.workers import give


def take_inventory(state: State, event: DevicesSeen) -> None:
    """Know what is there. Nothing follows yet."""
    state.devices.seen, state.devices.is_known = event.devices, True
    state.devices.lost = dict(event.lost)
    state.gpu_cause = None if event.devices or event.lost else "no NVIDIA GPU was found"


def rank_all(state: State) -> None:
    """Free memory may have changed: it decides between equally loaded workers."""
    for home in state.sets.values():
        home.rank()


def place_all(state: State, now_ms: float) -> None:
    """Tell every worker whether it has its devices: after an inventory, and when one is withheld or given back."""
    if not state.devices.is_known:
        return
    for replica in state.replicas.values():
        if replica.wanted is Wanted.HALT:
            continue
        missing = find_missing(state, replica)
        signal = Signal.DEVICES_FOUND if missing is None else Signal.DEVICES_MISSING
        give(state, replica, signal, now_ms, missing)


def find_missing(state: State, replica: Replica) -> str | None:
    """What a worker lacks of its mask, or why it may not have it; None where it has all. Its mask is resolved then."""
    return _place(replica, state.devices) or _withheld(state, replica)


def uuids_of(state: State, replica: Replica) -> frozenset[str]:
    """The GPUs of a worker's mask, as far as they are known."""
    if replica.devices:
        return frozenset(replica.devices)
    names = frozenset(map(str, replica.plan.devices))
    return frozenset(each.uuid for each in state.devices.seen if each.uuid in names or str(each.index) in names)


def _withheld(state: State, replica: Replica) -> str | None:
    is_spanning = len(replica.devices) > 1
    causes = (state.devices.cause_of(uuid, is_spanning=is_spanning) for uuid in replica.devices)
    return next((cause for cause in causes if cause is not None), None)


def _place(replica: Replica, ledger: DeviceLedger) -> str | None:
    """Resolve the mask to UUIDs once, and follow those from then on; gives what is missing."""
    by_name: dict[int | str, DeviceSeen] = {each.index: each for each in ledger.seen if each.parent is None}
    by_name.update({each.uuid: each for each in ledger.seen})
    wanted: tuple[int | str, ...] = replica.devices or replica.plan.devices
    if missing := [str(name) for name in wanted if name not in by_name]:
        lost = [ledger.lost[name] for name in missing if name in ledger.lost]
        return "; ".join(lost) or f"GPU {', '.join(missing)} is not there ({len(ledger.seen)} found)"
    if divided := [str(name) for name in wanted if by_name[name].is_divided]:
        return f"GPU {', '.join(divided)} is divided into MIG instances: name one of those"
    replica.devices = tuple(by_name[name].uuid for name in wanted)
    replica.vram_free_mib = min(by_name[name].vram_free_mib for name in wanted)
    return None


def note_devices_unknown(state: State, event: DevicesUnknown, now_ms: float) -> None:
    """No inventory: workers that have not begun wait for one. One lost answer never touches a healthy worker."""
    state.gpu_cause = event.cause
    for replica in state.replicas.values():
        if replica.phase is Phase.IDLE:
            give(state, replica, Signal.DEVICES_MISSING, now_ms, event.cause)
        elif replica.phase is Phase.UNPLACED:
            replica.cause = event.cause
