"""What the core does about memory: lets a worker start or wait, wakes it, learns from it, refuses impossible masks.

Headroom says whether it fits, needs what holds; here the state is changed (ORCH-3003, ORCH-3012, ORCH-3039).
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct, structs

from supervisor.core import headroom
from supervisor.core.events import (
    DeviceSeen,
    DevicesSeen,
    EngineExited,
    HostSeen,
    MemoryHeld,
    NeedsRestored,
    RoomMeasured,
)
from supervisor.core.headroom import Shortage
from supervisor.core.lifecycle import Phase, Signal
from supervisor.core.mask_rules import find_refusals
from supervisor.core.needs import MIB_MAX, Need, choose, highest
from supervisor.core.replicas import Replica
from supervisor.core.revisions import Role
from supervisor.core.state import State
from supervisor.core.workers import give

OOM_VRAM = "oom_vram"
OF_HOST = ("oom_host", "host_alloc")
"""The kernel ended it for want of RAM, or it was refused some."""
_HOLDING = (Phase.LOADING, Phase.INSPECTING, Phase.TESTING, Phase.READY)


class Judged(Struct, frozen=True):
    """What a look at the memory says of a worker: the needs that hold, the look with them, and what is short."""

    needs: tuple[Need, ...]
    measured: RoomMeasured
    shortage: Shortage | None


def judge_room(state: State, looker: Replica, event: RoomMeasured, replicas: Mapping[str, Replica]) -> Judged:
    """The one judgement of the gate, made for a start and for the outlook of one. Changes nothing."""
    recipe = event.recipe or recipe_of(looker)
    totals = tuple(room.total_mib for room in event.devices)
    needs = needs_of(state, recipe, tuple(room.need_mib for room in event.devices), totals)
    learned = state.needs.find(recipe)
    if learned is not None and learned.host_floor > event.host_need_mib:
        event = structs.replace(event, host_need_mib=learned.host_floor)
    shortage = headroom.find_shortage(event, replicas, looker, tuple(need.mib for need in needs))
    return Judged(needs, event, shortage)


def note_room(state: State, replica: Replica, event: RoomMeasured, now_ms: float) -> None:
    """Memory was measured: it is enough and now this worker's, or the worker waits for it."""
    if replica.phase is not Phase.MEASURING:
        return
    judged = judge_room(state, replica, event, state.replicas)
    replica.recipe = event.recipe or recipe_of(replica)
    replica.host_need_mib = judged.measured.host_need_mib
    needs, shortage = tuple(need.mib for need in judged.needs), judged.shortage
    if shortage is not None:
        replica.wanted_room, replica.wanted_host_mib = shortage.wanted, shortage.wanted_host_mib
        replica.is_too_big = shortage.is_for_good
        give(state, replica, Signal.ROOM_SHORT, now_ms, shortage.cause)
        return
    replica.wanted_room, replica.wanted_host_mib, replica.is_too_big = (), 0, False
    replica.claims = tuple((room.uuid, need) for room, need in zip(event.devices, needs, strict=True))
    replica.estimates = tuple(room.need_mib for room in event.devices)
    replica.held = ()
    give(state, replica, Signal.ROOM_FOUND, now_ms, headroom.describe(event, needs))


def needs_of(
    state: State, recipe: str, estimates: tuple[int, ...], totals: tuple[int, ...] | None = None
) -> tuple[Need, ...]:
    """The needs that hold, device by device in mask order; `totals` is what each device has, where that is known."""
    learned = state.needs.find(recipe) if recipe else None
    sizes = totals or (MIB_MAX,) * len(estimates)
    return tuple(choose(mib, learned, at, sizes[at]) for at, mib in enumerate(estimates))


def recipe_of(replica: Replica) -> str:
    """The name under which is kept what is learned of this worker; empty where its need was never estimated."""
    return replica.recipe or (replica.plan.need.recipe if replica.plan.need else "")


def refuse_masks(state: State, devices: Sequence[DeviceSeen], now_ms: float) -> None:
    """With an inventory it is known which pools can never work as configured: they are not begun."""
    current = [state.replicas[pool.current].plan for pool in state.pools.values()]
    others = (state.replicas[key] for key in sorted(state.aside))
    beside = [each.plan for each in others if each.role in (Role.CANDIDATE, Role.CANARY)]
    refused = find_refusals(current, devices, beside)
    for replica in state.replicas.values():
        was, replica.unfit = replica.unfit, refused.get(replica.pool_id)
        if was is not None and replica.unfit is None and replica.phase is Phase.BROKEN:
            give(state, replica, Signal.RETRY, now_ms)


def wake(state: State, _: DevicesSeen, now_ms: float) -> None:
    """A worker that waits for memory tries again at once where enough of it is seen free."""
    free = {device.uuid: device.vram_free_mib for device in state.devices.seen}
    for replica in state.replicas.values():
        wanted = replica.wanted_room
        is_seen = bool(wanted) and all(free.get(uuid, 0) >= mib for uuid, mib in wanted)
        if is_seen and not replica.wanted_host_mib and _waits_for_room(replica):
            replica.wanted_room = ()  # once for each shortage: what is seen free may be taken by the next look
            give(state, replica, Signal.RETRY, now_ms)


def wake_by_host(state: State, event: HostSeen, now_ms: float) -> None:
    """The same for one that the host alone is too small for now. One that is short of both waits for its next look."""
    for replica in state.replicas.values():
        is_seen = 0 < replica.wanted_host_mib <= event.free_mib
        if is_seen and not replica.wanted_room and _waits_for_room(replica):
            replica.wanted_host_mib = 0
            give(state, replica, Signal.RETRY, now_ms)


def _waits_for_room(replica: Replica) -> bool:
    return replica.phase is Phase.BACKOFF and replica.is_short and not replica.is_too_big


def note_held(state: State, event: MemoryHeld, _: float) -> None:
    """What processes hold on each device: a worker's peak is kept, so that estimates correct themselves."""
    for replica in state.replicas.values():
        if replica.pid is None or replica.phase not in _HOLDING:
            continue
        held = tuple(
            sum(
                holder.mib
                for uuid, holders in event.devices
                if uuid == device
                for holder in holders
                if holder.pid == replica.pid
            )
            for device in replica.devices
        )
        peak = tuple(map(max, held, replica.held or (0,) * len(held)))
        recipe = recipe_of(replica)
        if not any(peak) or peak == replica.held:
            continue
        replica.held = peak
        if recipe and replica.engine_version and state.needs.note_peak(recipe, replica.engine_version, peak):
            state.are_needs_stale = True


def note_ready(state: State, replica: Replica, now_ms: float) -> None:
    """It became Ready: how long that took is what the next start will take."""
    recipe, version = recipe_of(replica), replica.engine_version
    if not recipe or version is None:
        return
    if any(replica.held):
        state.needs.note_peak(recipe, version, replica.held)
    if replica.claims and replica.history.starts:  # an adopted engine was not started now
        state.needs.note_load(recipe, version, now_ms - replica.history.starts[-1])
        state.are_needs_stale = True


def note_stable(state: State, replica: Replica, incarnation: int) -> None:
    """It has served for long enough: its peak counts as one observation."""
    recipe, version = recipe_of(replica), replica.engine_version
    if replica.incarnation == incarnation and replica.phase is Phase.READY and recipe and version and any(replica.held):
        state.needs.note_stable(recipe, version)
        state.are_needs_stale = True


def note_exit(state: State, replica: Replica, event: EngineExited) -> None:
    """It ran out of memory: the need is raised, of GPUs or of the host, never of both (ORCH-3039)."""
    recipe = recipe_of(replica)
    if not recipe or event.kind not in (OOM_VRAM, *OF_HOST):
        return
    version = replica.engine_version or _version_of(state, recipe)
    if event.kind == OOM_VRAM:
        state.needs.note_vram_oom(recipe, version, highest(replica.held, replica.estimates))
    else:
        state.needs.note_host_oom(recipe, version, replica.host_need_mib)
    state.are_needs_stale = True


def _version_of(state: State, recipe: str) -> str:
    """One that died before it said what it is was most likely what ran before."""
    known = state.needs.find(recipe)
    return known.engine_version if known else ""


def restore(state: State, event: NeedsRestored, _: float) -> None:
    """Take up what an earlier daemon learned."""
    state.needs.restore(event.entries)
