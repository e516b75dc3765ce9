"""What follows from a fault of a GPU: whose worker is restarted, which GPU is withheld, and when it is given back.

The table of `faults` decides the reaction, the book remembers; here it is carried out (ORCH-3038, ORCH-3053). A GPU is
given back only by an inventory that was taken after its fault: facts are followed, not the clock alone.
"""

from supervisor.core import faults, leases, masks, restart
from supervisor.core.agenda import Alarm
from supervisor.core.devices import Withheld
from supervisor.core.effects import NoteFault, NoteRecovery, ProbeEngine
from supervisor.core.events import DeviceFaulted, DevicesSeen, DriverWasReset, EngineProbed
from supervisor.core.fault_book import (
    AFTERMATH_MS,
    APPLICATION_FAULTS_MAX,
    PID_WITHIN_MS,
    Hold,
    Pending,
    Sighting,
    hold_ms,
)
from supervisor.core.faults import Meaning, Reaction, RecoveryAction
from supervisor.core.lifecycle import Phase, Signal
from supervisor.core.replicas import Replica
from supervisor.core.state import State
from supervisor.core.workers import give

SHRUNK = 0.99
"""Total memory under this share of what it was has lost a part, and is not just counted otherwise."""


def note_faulted(state: State, event: DeviceFaulted, now_ms: float) -> None:
    """A GPU reported a fault; the same one out of the other source is no news."""
    sighting = Sighting(event.uuid, event.fault, event.pid, now_ms, event.instance)
    book = state.faults
    if not book.sight(sighting):
        if event.pid is not None and book.take_pending(sighting):
            _restart_owner(state, sighting, now_ms)
        return
    meaning = faults.meaning_of(event.fault)
    if meaning.flag is not None:
        book.flag(event.uuid, meaning.flag)
    state.out.append(NoteFault(event.uuid, event.fault, meaning.kind, meaning.ecc, event.source, event.text, event.pid))
    _react(state, sighting, meaning, now_ms)


def _react(state: State, sighting: Sighting, meaning: Meaning, now_ms: float) -> None:
    match meaning.reaction:
        case Reaction.NOTE | Reaction.FOLLOW:
            pass  # the look that follows every fault brings the recovery action and the memory that is left
        case Reaction.PROBE:
            _probe_all(state, sighting.uuid, faults.name_of(sighting.fault))
        case Reaction.RESTART_OWNER:
            _restart_owner_or_wait(state, sighting, now_ms)
        case Reaction.AFTERMATH:
            _wait(state, sighting, now_ms + AFTERMATH_MS)
        case Reaction.RESTART_ALL:
            for replica in _on(state, sighting):
                give(state, replica, Signal.REPLACE, now_ms, _cause(sighting))
        case Reaction.WITHHOLD | Reaction.REBOOT | Reaction.LINK:
            _withhold(state, sighting, meaning, now_ms)


def _cause(sighting: Sighting) -> str:
    return f"GPU {sighting.uuid} reported {faults.name_of(sighting.fault)}"


# Restarts -----------------------------------------------------------------------------------------------------------


def _wait(state: State, sighting: Sighting, due_ms: float) -> None:
    state.faults.pending.append(Pending(due_ms, sighting))
    state.agenda.add(due_ms, Alarm.DEVICE_FAULT, "")


def note_due(state: State, now_ms: float) -> None:
    """What waited for more news is decided without it."""
    for sighting in state.faults.take_due(now_ms):
        is_aftermath = faults.meaning_of(sighting.fault).reaction is Reaction.AFTERMATH
        if not (is_aftermath and state.faults.has_cause(sighting, now_ms)):
            _restart_owner(state, sighting, now_ms)


def _restart_owner_or_wait(state: State, sighting: Sighting, now_ms: float) -> None:
    """NVML names no process: wait for the kernel log, unless there is one worker only, or its line came first."""
    if sighting.pid is not None or len(_on(state, sighting)) == 1:
        _restart_owner(state, sighting, now_ms)
    else:
        _wait(state, sighting, now_ms + PID_WITHIN_MS)


def _restart_owner(state: State, sighting: Sighting, now_ms: float) -> None:
    """The worker of that process; without a process, every one on the GPU. A stranger's process is no worker's."""
    meaning = faults.meaning_of(sighting.fault)
    for replica in _on(state, sighting):
        if sighting.pid is None or replica.pid == sighting.pid:
            cause = _cause(sighting)
            if meaning.is_application:
                cause = _hold_against(state, replica, cause, now_ms)
            give(state, replica, Signal.REPLACE, now_ms, cause)


def _hold_against(state: State, replica: Replica, cause: str, now_ms: float) -> str:
    """Too many faults of one model on one engine: the restart that follows finds the breaker open."""
    model = replica.plan.model_digest or replica.plan.model_ref
    count = state.faults.strike_application(model, replica.plan.engine, now_ms)
    if count < APPLICATION_FAULTS_MAX:
        return cause
    replica.history = restart.note_open(replica.history)
    return f"{cause}; this model had {count} such faults on {replica.plan.engine} within 10 min"


def _on(state: State, sighting: Sighting) -> list[Replica]:
    """The workers on a GPU, or on the one instance of it that the fault happened in."""
    scope = state.devices.with_instances(sighting.instance or sighting.uuid)
    return [replica for replica in state.replicas.values() if scope & set(replica.devices)]


def _probe_all(state: State, uuid: str, cause: str) -> None:
    """Ask the idle workers on a GPU for a token. A busy one is watched already, by the watchdog of its runs."""
    scope = state.devices.with_instances(uuid)
    for replica in state.replicas.values():
        if replica.phase is Phase.READY and not replica.load and scope & set(replica.devices):
            state.out.append(ProbeEngine(replica.pool_id, replica.incarnation, cause))


def note_probed(state: State, replica: Replica, event: EngineProbed, now_ms: float) -> None:
    """A worker that gave no token after a fault of its GPU is replaced."""
    if event.cause is not None and not replica.load:
        give(state, replica, Signal.REPLACE, now_ms, event.cause)


# Holds --------------------------------------------------------------------------------------------------------------


def _withhold(state: State, sighting: Sighting, meaning: Meaning, now_ms: float) -> None:
    uuid = sighting.uuid
    is_blind = _recovery(state, uuid) is None
    until_ms = now_ms + hold_ms(state.faults.strike(uuid, now_ms), is_blind=is_blind)
    hold = Hold(
        cause=_cause(sighting),
        until_ms=until_ms,
        needs_absence=meaning.reaction is Reaction.REBOOT,
        is_of_link=meaning.reaction is Reaction.LINK,
    )
    _hold(state, uuid, hold, now_ms)


def _hold(state: State, uuid: str, hold: Hold, now_ms: float) -> None:
    """Withhold a GPU; of two reasons the graver one stands, and the longer time."""
    known = state.faults.holds.get(uuid)
    if known is not None:
        hold.until_ms = max(hold.until_ms, known.until_ms)
        hold.needs_absence = hold.needs_absence or known.needs_absence
        hold.is_of_link = hold.is_of_link and known.is_of_link
    state.faults.holds[uuid] = hold
    if not hold.is_of_link:
        state.devices.release(uuid, Withheld.LINK)
    state.devices.withhold(uuid, Withheld.LINK if hold.is_of_link else Withheld.FAULT, hold.cause)
    masks.place_all(state, now_ms)


def _recovery(state: State, uuid: str) -> RecoveryAction | None:
    value = next((each.recovery for each in state.devices.seen if each.uuid == uuid), None)
    return None if value is None else faults.recovery_of(value)


def note_devices(state: State, event: DevicesSeen, now_ms: float) -> None:
    """A complete inventory: what the driver says of each GPU is followed, then every worker has its devices, or not."""
    masks.take_inventory(state, event)
    leases.bind(state)
    present = {device.uuid for device in event.devices}
    for uuid, hold in list(state.faults.holds.items()):
        if uuid not in present:
            hold.was_absent = True
    for device in event.devices:
        _follow(state, device.uuid, now_ms)
        _measure(state, device.uuid, device.vram_total_mib, now_ms)
    masks.place_all(state, now_ms)
    masks.rank_all(state)


def _follow(state: State, uuid: str, now_ms: float) -> None:
    """Withhold a GPU, keep it withheld, or give it back.

    1. The driver names an action: withheld; where only links were held back, for the graver reason from now on.
    2. It names none, and the time is over, or the GPU was gone and is back: given back.
    """
    action, hold = _recovery(state, uuid), state.faults.holds.get(uuid)
    if action is not None and action is not RecoveryAction.NONE:  # 1
        is_of_link = faults.is_link_action(action)
        if hold is None or (hold.is_of_link and not is_of_link):
            cause = f"GPU {uuid}: the driver asks for {action}"
            _hold(state, uuid, Hold(cause, now_ms, is_of_link=is_of_link), now_ms)
        return
    if hold is None or (hold.needs_absence and not hold.was_absent):
        return
    if hold.was_absent or hold.until_ms <= now_ms:  # 2
        _release(state, uuid, hold)


def _release(state: State, uuid: str, hold: Hold) -> None:
    del state.faults.holds[uuid]
    for why in (Withheld.FAULT, Withheld.LINK):
        state.devices.release(uuid, why)
    state.out.append(NoteRecovery(uuid, hold.cause))


def _measure(state: State, uuid: str, total_mib: int, now_ms: float) -> None:
    """Memory that is gone for good: the workers start again, and must fit into what is left."""
    known_mib = state.faults.totals_mib.get(uuid, total_mib)
    state.faults.totals_mib[uuid] = total_mib
    if total_mib >= known_mib * SHRUNK:
        return
    for replica in _on(state, Sighting(uuid, 0, None, now_ms)):
        give(state, replica, Signal.REPLACE, now_ms, f"GPU {uuid} has {total_mib} MiB left of {known_mib}")


def note_driver_reset(state: State, event: DriverWasReset, _: float) -> None:
    """The driver began anew: counted apart from memory errors; whoever held a context on it is asked for a token."""
    book = state.faults
    book.driver_resets += 1
    for uuid in event.uuids:
        book.flags.pop(uuid, None)
        if (hold := book.holds.get(uuid)) is not None:
            hold.was_absent = True
        _probe_all(state, uuid, event.cause)
