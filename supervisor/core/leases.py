"""GPUs lent to a command outside orchctl, for a while: who has which, and how they come to be free.

Draining -> Stopping -> Verifying -> Held -> (ended)

1. Draining: the pools on these GPUs start nothing new; what runs may end until the drain's deadline, then it ends as
   WORKER_RESET. Where the lease names a pool to drain to, that one serves their names for as long.
2. Stopping: nothing runs any more, so the GPUs are withheld, and the lifecycle stops their workers.
3. Verifying: no worker is left; the runtime sees that their memory is free. Where it is not, the lease ends.
4. Held: the command may use them, until it is given back, its time is over or its holder is gone.

When a lease ends the GPUs are no longer withheld, and the workers start again: their headroom is measured, so that they
wait for a command that still holds memory. A lease survives a restart of the daemon. Nothing here starts a command.
"""

from msgspec import structs

from supervisor.core import masks, runs
from supervisor.core.agenda import Alarm
from supervisor.core.devices import Withheld
from supervisor.core.effects import AnswerLease, AnswerRefused, NoteLease, VerifyRelease
from supervisor.core.events import LeaseEnded, LeaseRequested, ReleaseVerified
from supervisor.core.intent import LeaseNote
from supervisor.core.lease import Lease, LeasePhase
from supervisor.core.lifecycle import Phase
from supervisor.core.refusals import Refused
from supervisor.core.replicas import Replica
from supervisor.core.state import State, reroute, touch
from supervisor.wire.codes import Code, Reason

RELEASE_WITHIN_MS = 30_000
"""The driver frees the memory of a process that has ended within a second or two."""
_STOPPED = frozenset({Phase.UNPLACED, Phase.RESTING, Phase.OFF})


def request(state: State, event: LeaseRequested, now_ms: float) -> None:
    """Begin a lease, or say why not."""
    note = event.note
    if (refused := _refuse(state, note, now_ms)) is not None:
        state.out.append(AnswerRefused(event.ticket, refused))
        return
    lease = Lease(note, drain_deadline_ms=now_ms + event.drain_ms)
    state.leases[note.lease_id] = lease
    bind(state)
    state.is_intent_stale = True
    state.agenda.add(lease.drain_deadline_ms, Alarm.LEASE, note.lease_id)
    state.agenda.add(note.expires_ms, Alarm.LEASE, note.lease_id)
    state.out += [AnswerLease(event.ticket, note.lease_id), NoteLease(note.lease_id, lease.phase, None)]


def _refuse(state: State, note: LeaseNote, now_ms: float) -> Refused | None:
    """Why not, None where it may begin.

    1. The daemon goes on. 2. The GPUs are there. 3. Nobody has them. 4. Their owner may have so many. 5. The pool that
    is to serve in place of those that give way is there, and gives no way itself.
    """
    if state.halt_deadline_ms is not None:  # 1
        return _refused(Code.POOL_UNAVAILABLE, Reason.SHUTDOWN, "The daemon is stopping.", RELEASE_WITHIN_MS)
    known = {device.uuid for device in state.devices.seen}
    if missing := [uuid for uuid in note.devices if uuid not in known]:  # 2
        return _refused(Code.INVALID_PARAMS, Reason.DEVICE, f"There is no GPU {missing[0]} on this host.")
    wanted = _parts(state, note)
    for other in state.leases.values():  # 3
        if shared := sorted(_parts(state, other.note) & wanted):
            message = f"GPU {shared[0]} is leased to {other.note.owner} already ({other.note.lease_id})."
            left_ms = max(round(other.note.expires_ms - now_ms), 1)
            return _refused(Code.ADMISSION_REJECT, Reason.BUSY, message, left_ms)
    bound = state.host.lease_devices_max  # 4
    if bound is not None and (refused := _refuse_more(state, note, bound, now_ms)) is not None:
        return refused
    return _refuse_detour(state, note, wanted)


def _refuse_more(state: State, note: LeaseNote, bound: int, now_ms: float) -> Refused | None:
    """More than one owner may have: to be tried again when the first of its leases ends, or never."""
    own = [other.note for other in state.leases.values() if other.note.owner == note.owner]
    held, wanted = sum(len(each.devices) for each in own), len(note.devices)
    if held + wanted <= bound:
        return None
    message = f"{note.owner} may lease {bound} at once (`leases.devices_max`), has {held} and asks for {wanted}."
    if wanted > bound:
        return structs.replace(_refused(Code.ADMISSION_REJECT, Reason.QUOTA, message), is_final=True)
    left_ms = max(round(min(each.expires_ms for each in own) - now_ms), 1)
    return _refused(Code.ADMISSION_REJECT, Reason.QUOTA, message, left_ms)


def _refuse_detour(state: State, note: LeaseNote, wanted: frozenset[str]) -> Refused | None:
    if note.drain_to is None:  # 5
        return None
    pool = state.pools.get(note.drain_to)
    if pool is None:
        return _refused(Code.INVALID_PARAMS, Reason.FIELD, "drain_to: there is no such pool.")
    if not wanted.isdisjoint(masks.uuids_of(state, state.replicas[pool.current])):
        return _refused(Code.INVALID_PARAMS, Reason.FIELD, "drain_to: that pool is on the same GPU.")
    return None


def _refused(code: Code, reason: Reason, message: str, retry_after_ms: int | None = None) -> Refused:
    return Refused(code=code, reason=reason, message=message, retry_after_ms=retry_after_ms)


def _parts(state: State, note: LeaseNote) -> frozenset[str]:
    """The GPUs of a lease with the instances that they are divided into: who has a GPU has those too."""
    return frozenset().union(*(state.devices.with_instances(uuid) for uuid in note.devices))


def bind(state: State) -> None:
    """Nothing new is dispatched to the workers on leased GPUs: also to one that came after its lease was begun.

    To be told with an inventory or a new worker, before a worker is told that it lacks a GPU: what waits for it looks
    for another pool then.
    """
    parts = {lease_id: _parts(state, lease.note) for lease_id, lease in state.leases.items()}
    bound: dict[str, list[str]] = {lease_id: [] for lease_id in state.leases}
    is_changed = False
    for replica in state.replicas.values():
        uuids = masks.uuids_of(state, replica)
        mine = [lease_id for lease_id, claimed in parts.items() if not claimed.isdisjoint(uuids)]
        for lease_id in mine:
            bound[lease_id].append(replica.pool_id)
        first = mine[0] if mine else None
        if first != replica.leased_to:
            replica.leased_to, is_changed = first, True
            touch(state, replica)
    for lease_id, lease in state.leases.items():
        lease.pools = tuple(bound[lease_id])
    if is_changed:
        reroute(state)


def settle(state: State, now_ms: float) -> None:
    """Take every lease as far as it can come now."""
    if not state.devices.is_known:
        return
    if any(lease.pools is None or lease.phase is not LeasePhase.HELD for lease in state.leases.values()):
        bind(state)
    for lease in tuple(state.leases.values()):
        replicas = _workers(state, lease)
        if lease.phase is LeasePhase.DRAINING and not any(replica.runs for replica in replicas):
            _stop(state, lease, now_ms)
        if lease.phase is LeasePhase.STOPPING and all(replica.phase in _STOPPED for replica in replicas):
            _enter(state, lease, LeasePhase.VERIFYING)
            state.out.append(VerifyRelease(lease.note.lease_id, lease.note.devices, RELEASE_WITHIN_MS))


def _workers(state: State, lease: Lease) -> list[Replica]:
    """Those that give way and still exist: a rollout may have replaced some."""
    return [state.replicas[key] for key in lease.pools or () if key in state.replicas]


def _stop(state: State, lease: Lease, now_ms: float) -> None:
    _enter(state, lease, LeasePhase.STOPPING)
    _withhold(state, lease)
    masks.place_all(state, now_ms)


def _withhold(state: State, lease: Lease) -> None:
    for uuid in lease.note.devices:
        state.devices.withhold(uuid, Withheld.LEASE, f"GPU {uuid} is leased to {lease.note.owner}")


def _enter(state: State, lease: Lease, phase: LeasePhase, cause: str | None = None) -> None:
    lease.phase = phase
    state.out.append(NoteLease(lease.note.lease_id, phase, cause))


def note_released(state: State, event: ReleaseVerified, now_ms: float) -> None:
    """The memory of the workers is free, or did not become so in time."""
    lease = state.leases.get(event.lease_id)
    if lease is None or lease.phase is not LeasePhase.VERIFYING:
        return
    if event.cause is not None:
        end(state, LeaseEnded(event.lease_id, event.cause), now_ms)
        return
    lease.note = structs.replace(lease.note, is_held=True)
    state.is_intent_stale = True
    _enter(state, lease, LeasePhase.HELD)


def note_due(state: State, lease_id: str, now_ms: float) -> None:
    """The drain's deadline or the end of the lease has come."""
    lease = state.leases.get(lease_id)
    if lease is None:
        return
    if lease.note.expires_ms <= now_ms:
        end(state, LeaseEnded(lease_id, "its time is over"), now_ms)
    elif lease.phase is LeasePhase.DRAINING and lease.drain_deadline_ms <= now_ms:
        for replica in _workers(state, lease):
            runs.reset_all(state, replica, Reason.DRAINING, "The GPU of this pool was leased.")


def end(state: State, event: LeaseEnded, now_ms: float) -> None:
    """The GPUs come back to their pools. Nothing happens for a lease that is over."""
    lease = state.leases.pop(event.lease_id, None)
    if lease is None:
        return
    state.is_intent_stale = True
    if lease.phase is not LeasePhase.DRAINING:
        for replica in _workers(state, lease):  # they stopped because they were asked to: no storm begins with that
            replica.history = structs.replace(replica.history, starts=())
    bind(state)
    for uuid in lease.note.devices:
        state.devices.release(uuid, Withheld.LEASE)
    state.out.append(NoteLease(event.lease_id, "ended", event.why))
    masks.place_all(state, now_ms)


def notes(state: State) -> tuple[LeaseNote, ...]:
    """All leases, to be written down."""
    return tuple(lease.note for lease in state.leases.values())


def restore(state: State, kept: tuple[LeaseNote, ...], shift_ms: float, now_ms: float) -> None:
    """Take up the leases of an earlier daemon: its workers are gone or will be stopped, and nothing drains."""
    for note in kept:
        moved = structs.replace(note, expires_ms=note.expires_ms + shift_ms)
        lease = Lease(moved, LeasePhase.HELD if note.is_held else LeasePhase.STOPPING)
        state.leases[note.lease_id] = lease
        _withhold(state, lease)
        state.agenda.add(max(moved.expires_ms, now_ms), Alarm.LEASE, note.lease_id)
        state.out.append(NoteLease(note.lease_id, lease.phase, "taken up from an earlier daemon"))
    masks.place_all(state, now_ms)
