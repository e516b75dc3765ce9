"""Whether a worker's memory fits before it is spawned (ORCH-3003): need against what is free, device by device.

Free is what NVML says less what other workers of ours were promised and have not taken yet; a reserve is kept on top of
the need. Measures nothing. A worker's claim stands from the moment that it may be spawned until a look at the devices
that was begun after it became Ready, or began to stop: until then, free memory may hold what it is about to take.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from supervisor.core.events import DeviceRoom, RoomMeasured
from supervisor.core.lifecycle import Phase
from supervisor.core.memory_need import need_fitting, reserve_mib
from supervisor.core.replicas import Replica

HOLDERS_SHOWN_MAX = 3
_TAKING = (Phase.SPAWNING, Phase.LOADING, Phase.INSPECTING, Phase.TESTING)


class Shortage(Struct, frozen=True):
    """Why a worker must wait: one sentence, and for each device (by UUID) the free MiB with which it could start.

    `wanted` is empty where no device is short, `wanted_host_mib` is what must be free of the host, 0 where that is not
    short. `is_for_good`: not even an empty device or host would do.
    """

    cause: str
    wanted: tuple[tuple[str, int], ...]
    wanted_host_mib: int = 0
    is_for_good: bool = False


def claimed_on(uuid: str, replicas: Iterable[Replica], looker: Replica) -> dict[str, int]:
    """What other workers were promised on a device and may not have taken when `looker` looked, by pool, in MiB."""
    claims = {}
    for each in replicas:
        is_loading = each.phase in _TAKING
        is_fresh = each.phase in (Phase.READY, Phase.STOPPING) and each.since_ms > looker.since_ms
        if each is not looker and (is_loading or is_fresh):
            mib = sum(claim for name, claim in each.claims if name == uuid)
            if mib:
                claims[each.pool_id] = mib
    return claims


def find_shortage(
    measured: RoomMeasured, replicas: Mapping[str, Replica], looker: Replica, needs_mib: tuple[int, ...]
) -> Shortage | None:
    """Where memory is short, with need, free and reserve and who holds it; None where all fits."""
    causes, wanted, wanted_host_mib, is_for_good = [], [], 0, False
    for room, need in zip(measured.devices, needs_mib, strict=True):
        claims = claimed_on(room.uuid, replicas.values(), looker)
        owed = owed_on(room, replicas, looker)
        whole = wanted_mib(room, need)
        wanted.append((room.uuid, whole + owed))
        if whole > room.total_mib:
            is_for_good = True
            causes.append(_never(room, need, measured))
        elif whole + owed > room.free_mib:
            causes.append(_short(room, need, claims, replicas))
    is_device_short = bool(causes)
    if measured.host_need_mib > measured.host_free_mib:
        wanted_host_mib = measured.host_need_mib
        causes.append(f"the host has {measured.host_free_mib} MiB free, {measured.host_need_mib} MiB are needed")
        is_for_good = is_for_good or measured.host_need_mib > measured.host_total_mib > 0
    if not causes:
        return None
    return Shortage("; ".join(causes), tuple(wanted) if is_device_short else (), wanted_host_mib, is_for_good)


def owed_on(room: DeviceRoom, replicas: Mapping[str, Replica], looker: Replica) -> int:
    """What is promised to others there and was not taken yet, in MiB."""
    claims = claimed_on(room.uuid, replicas.values(), looker)
    return sum(max(mib - taken_on(room, replicas[key]), 0) for key, mib in claims.items())


def wanted_mib(room: DeviceRoom, need_mib: int) -> int:
    """Need and reserve. An engine that takes a share of the whole device leaves its reserve outside that share."""
    if room.parts is not None and room.parts.total_share:
        return max(need_mib, room.parts.sum_mib + reserve_mib(room.parts.sum_mib))
    return need_mib + reserve_mib(need_mib)


def taken_on(room: DeviceRoom, replica: Replica) -> int:
    """What a worker's processes are seen to hold there, in MiB."""
    return sum(holder.mib for holder in room.holders if holder.pid == replica.pid)


def _short(room: DeviceRoom, need: int, claims: Mapping[str, int], replicas: Mapping[str, Replica]) -> str:
    text = f"GPU {room.uuid} has {room.free_mib} MiB free, {_wanted(room, need)} are needed"
    held = [f"{pool} is about to take {mib} MiB" for pool, mib in claims.items()]
    names = {each.pid: each.pool_id for each in replicas.values() if each.pid is not None}
    for holder in sorted(room.holders, key=lambda one: -one.mib)[:HOLDERS_SHOWN_MAX]:
        who = (
            f"pool {names[holder.pid]}" if holder.pid in names else f"pid {holder.pid} ({holder.name}), not of orchctl,"
        )
        held.append(f"{who} holds {holder.mib} MiB")
    return f"{text}: {', '.join(held)}" if held else text


def _wanted(room: DeviceRoom, need: int) -> str:
    whole = wanted_mib(room, need)
    return f"{whole} MiB ({need} and a reserve of {whole - need})"


def _never(room: DeviceRoom, need: int, measured: RoomMeasured) -> str:
    """Less than is needed even on an empty device: say what would fit (ORCH-3052)."""
    text = f"GPU {room.uuid} has {room.total_mib} MiB in all, {_wanted(room, need)} are needed"
    return f"{text}: {advice}" if (advice := what_fits(room, measured)) else text


def what_fits(room: DeviceRoom, measured: RoomMeasured) -> str | None:
    """Which context, which slots, or which share of the split would fit an empty device."""
    parts = room.parts
    if parts is None or not parts.kv_mib or not measured.cells_per_slot:
        return None
    fixed = parts.sum_mib - parts.kv_mib
    kv_room = need_fitting(room.total_mib) - fixed
    said = []
    if kv_room > 0:
        ctx = measured.cells_per_slot * kv_room // parts.kv_mib // 256 * 256
        slots = measured.slots * kv_room // parts.kv_mib
        said += [f"a ctx of {ctx}"] if ctx else []
        said += [f"{slots} slots"] if 0 < slots < measured.slots else []
    everything = sum(each.parts.weights_mib + each.parts.kv_mib for each in measured.devices if each.parts)
    share = (need_fitting(room.total_mib) - parts.buffers_mib - parts.overhead_mib) / everything if everything else 0
    if len(measured.devices) > 1 and share > 0:
        said.append(f"a share of {share:.2f} in tensor_split")
    return f"{' or '.join(said)} would fit" if said else "not even its weights fit"


def describe(measured: RoomMeasured, needs_mib: tuple[int, ...]) -> str:
    """What was found, for the status."""
    pairs = zip(measured.devices, needs_mib, strict=True)
    return ", ".join(f"{need} of {room.free_mib} MiB free on {room.uuid}" for room, need in pairs)
