"""Draws the memory plan: the state of the core and the last look at the devices, as the planner wants them."""

from collections.abc import Mapping

from supervisor.core.capacity import Candidate, Judged, plan_starts
from supervisor.core.lifecycle import Phase
from supervisor.core.memory_desk import needs_of, recipe_of
from supervisor.core.memory_need import DeviceNeed
from supervisor.core.needs import MIB_MAX
from supervisor.core.replicas import Replica
from supervisor.core.state import State
from supervisor.wire.plan import MemoryPlan, PlanDevice, PlanPool, PlanShare
from supervisor.wire.pools import DeviceView

_HAS_MEMORY = (Phase.SPAWNING, Phase.LOADING, Phase.INSPECTING, Phase.TESTING, Phase.READY)
_NOTHING = DeviceNeed(0, 0, 0, 0)


def plan_memory(
    state: State, devices: Mapping[str, DeviceView], simulated: str | None, *, host_free_mib: int | None = None
) -> MemoryPlan:
    """The plan of all pools, in start order. `devices` is the last look, by UUID."""
    claims = {uuid: _claimed(state, uuid) for uuid in devices}
    free = {uuid: (view.vram_free_mib or 0) - claims[uuid] for uuid, view in devices.items()}
    totals = {uuid: view.vram_total_mib for uuid, view in devices.items()}
    candidates = [_candidate(state, replica, totals, devices) for replica in state.replicas.values()]
    judged = plan_starts(candidates, free)
    return MemoryPlan(
        offline=False,
        simulated=simulated,
        devices=[
            PlanDevice(
                uuid=view.uuid,
                index=view.index,
                name=view.name,
                total_mib=view.vram_total_mib,
                free_mib=view.vram_free_mib or 0,
                claimed_mib=claims[view.uuid],
            )
            for view in devices.values()
        ],
        pools=[view_judged(state, one, candidate) for one, candidate in zip(judged, candidates, strict=True)],
        host_free_mib=host_free_mib,
        gpu_cause=state.gpu_cause,
    )


def _claimed(state: State, uuid: str) -> int:
    """Promised to workers that are loading, less what they were seen to hold."""
    owed = 0
    for replica in state.replicas.values():
        if replica.phase in _HAS_MEMORY and replica.phase is not Phase.READY:
            claim = sum(mib for name, mib in replica.claims if name == uuid)
            held = dict(zip(replica.devices, replica.held, strict=False)).get(uuid, 0)
            owed += max(claim - held, 0)
    return owed


def _candidate(
    state: State, replica: Replica, totals: Mapping[str, int], devices: Mapping[str, DeviceView]
) -> Candidate:
    need = replica.plan.need
    uuids = replica.devices or _named(replica, devices)
    parts = need.devices if need is not None else ()
    estimates = tuple(each.on(totals.get(uuid, 0)) for uuid, each in zip(uuids, parts, strict=False))
    return Candidate(
        pool_id=replica.pool_id,
        devices=uuids,
        needs=needs_of(state, recipe_of(replica), estimates, tuple(totals.get(uuid, MIB_MAX) for uuid in uuids)),
        parts=parts,
        has_memory=replica.phase in _HAS_MEMORY,
        refused=replica.plan.unplannable or replica.unfit or (replica.cause if replica.is_too_big else None),
    )


def _named(replica: Replica, devices: Mapping[str, DeviceView]) -> tuple[str, ...]:
    """The devices of a mask that was not resolved yet."""
    by_name: dict[int | str, str] = {view.index: view.uuid for view in devices.values()}
    by_name |= {uuid: uuid for uuid in devices}
    found = tuple(by_name[name] for name in replica.plan.devices if name in by_name)
    return found if len(found) == len(replica.plan.devices) else ()


def view_judged(state: State, judged: Judged, candidate: Candidate) -> PlanPool:
    """One pool as it is shown."""
    replica = state.replicas[judged.pool_id]
    learned = state.needs.find(recipe_of(replica)) if recipe_of(replica) else None
    padded = (*candidate.parts, *(_NOTHING,) * len(judged.shares))
    return PlanPool(
        pool_id=judged.pool_id,
        state=replica.phase,
        verdict=judged.verdict,
        cause=judged.cause,
        shares=[
            PlanShare(
                device=share.device,
                need_mib=share.need.mib,
                reserve_mib=share.reserve_mib,
                free_before_mib=share.free_before_mib,
                free_after_mib=share.free_after_mib,
                source=share.need.source,
                why=share.need.why,
                weights_mib=parts.weights_mib,
                kv_mib=parts.kv_mib,
                buffers_mib=parts.buffers_mib,
                overhead_mib=parts.overhead_mib,
            )
            for share, parts in zip(judged.shares, padded, strict=False)
        ],
        host_need_mib=replica.plan.need.host_mib if replica.plan.need else None,
        load_ms=learned.load_ms if learned else None,
    )
