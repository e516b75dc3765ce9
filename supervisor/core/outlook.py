"""What a change of pools would do to the memory of the GPUs, judged before it is made. Pure; changes nothing.

It asks what judges the real change: the gate (`memory_desk.judge_room`), the masks, and `rollouts.is_in_the_way`.

1. A plan that cannot start, or whose GPUs are not there, fails; what serves goes on.
2. What fits as things are starts: beside the current revision, which serves until then.
3. What does not even fit an empty GPU never starts.
4. Where it is short, standbys and workers on their way out give way first.
5. A revision that is still short because of the current one is put in its place (stop-start). Where it would be short
   even then, the current one comes back.
6. Else a new pool waits for memory; a revision fails.

Whether a file has its digest and an engine comes up is not foreseen, nor what strangers do meanwhile. Changes are
judged in the order in which they are asked; each that would start leaves less for those behind it.
"""

from collections.abc import Collection, Iterable
from enum import StrEnum

from msgspec import Struct, structs

from supervisor.core import headroom, masks, pools, rollouts
from supervisor.core.events import DeviceRoom, RoomMeasured
from supervisor.core.lifecycle import Phase
from supervisor.core.memory_desk import Judged, judge_room
from supervisor.core.needs import Need
from supervisor.core.plan import PoolPlan
from supervisor.core.replicas import Replica
from supervisor.core.revisions import Role, RolloutKind
from supervisor.core.state import State, set_key


class Way(StrEnum):
    """What would become of a pool. These words are shown to operators."""

    STAYS = "stays"
    STARTS = "starts"
    WAITS = "waits"
    STOPS = "stops"
    SIDE_BY_SIDE = "side-by-side"
    STOP_START = "stop-start"
    RETURNS = "returns"
    FAILS = "fails"
    NEVER = "never"


class Taken(Struct, frozen=True):
    """One device of one change, in MiB: what the new worker needs, what stays free beside it, and what is there.

    `free_mib` is what was seen free and what gives way; `owed_mib` of it is promised to others that have not taken it.
    `old_mib` is what the current revision holds.
    """

    device: str
    need: Need
    reserve_mib: int
    free_mib: int
    owed_mib: int
    old_mib: int


class Outlook(Struct, frozen=True):
    """What would become of one worker; `gives_way` are the keys of workers that would be stopped for it."""

    key: str
    way: Way
    cause: str | None = None
    takes: tuple[Taken, ...] = ()
    gives_way: tuple[str, ...] = ()
    host_need_mib: int | None = None


def looker_for(state: State, plan: PoolPlan, now_ms: float) -> tuple[Replica, str | None]:
    """A worker as it would begin, known to nobody, and why it could not: its plan, or its GPUs."""
    looker = Replica(plan=plan, set_key=set_key(plan, None), meter="", role=Role.CANDIDATE, since_ms=now_ms)
    if plan.unplannable is not None:
        return looker, plan.unplannable
    if not state.devices.is_known:
        return looker, state.gpu_cause or "the GPUs are not known yet"
    return looker, masks.find_missing(state, looker)


class Foresight:
    """Judges the changes of one request, one after the other. `removed` are pools that go with it."""

    def __init__(self, state: State, removed: Iterable[str] = ()) -> None:
        self._state = state
        self._replicas = dict(state.replicas)
        self._gone: dict[str, Replica] = {}
        self._removed = frozenset(removed)

    def judge(self, kind: RolloutKind | None, looker: Replica, measured: RoomMeasured) -> Outlook:
        """`kind` is None for a pool that is new. `measured` is a look at the devices of the mask of `looker`."""
        old = None if kind is None else self._state.replicas[self._state.pools[looker.plan.public_id].current]
        fits = Way.STARTS if kind is None else Way.SIDE_BY_SIDE
        found = self._look(looker, measured)
        if found.shortage is None:  # 2
            return self._start(looker, fits, found, old)
        if found.shortage.is_for_good:  # 3
            return self._end(looker, Way.NEVER, found, old)
        leaving = self._leaving(looker)
        if leaving:  # 4
            self._let_go(leaving)
            found = self._look(looker, measured)
            if found.shortage is None:
                return self._start(looker, fits, found, old, leaving)
        if old is not None and kind is not None and rollouts.is_in_the_way(self._state, kind, old, looker):  # 5
            alone = self._look(looker, measured, but=(old,))
            if alone.shortage is not None:
                return self._end(looker, Way.RETURNS, alone, old, leaving)
            self._let_go([old])
            return self._start(looker, Way.STOP_START, alone, old, [*leaving, old])
        return self._end(looker, Way.WAITS if kind is None else Way.FAILS, found, old, leaving)  # 6

    def _leaving(self, looker: Replica) -> list[Replica]:
        found = [*pools.beside(self._state, looker, Role.STANDBY), *pools.beside(self._state, looker, Role.RETIRING)]
        for replica in self._state.replicas.values():
            is_going = replica.plan.public_id in self._removed and replica not in found
            if is_going and pools.shares_devices(self._state, looker, replica):
                found.append(replica)
        return [each for each in found if each.pool_id not in self._gone]

    def _let_go(self, leaving: Iterable[Replica]) -> None:
        for replica in leaving:
            self._gone[replica.pool_id] = replica
            self._replicas.pop(replica.pool_id, None)

    def _look(self, looker: Replica, measured: RoomMeasured, but: Collection[Replica] = ()) -> Judged:
        gone = {**self._gone, **{each.pool_id: each for each in but}}
        rest = {key: each for key, each in self._replicas.items() if key not in gone}
        return judge_room(self._state, looker, without(measured, gone.values()), rest)

    def _start(
        self, looker: Replica, way: Way, found: Judged, old: Replica | None, gives_way: Collection[Replica] = ()
    ) -> Outlook:
        """It would be promised its memory: those behind it find that taken."""
        outlook = self._end(looker, way, found, old, gives_way)
        looker.claims = tuple(
            (room.uuid, need.mib) for room, need in zip(found.measured.devices, found.needs, strict=True)
        )
        looker.phase = Phase.SPAWNING
        self._replicas[looker.pool_id] = looker
        return outlook

    def _end(
        self, looker: Replica, way: Way, found: Judged, old: Replica | None, gives_way: Collection[Replica] = ()
    ) -> Outlook:
        takes = tuple(
            self._taken(looker, room, need, old) for room, need in zip(found.measured.devices, found.needs, strict=True)
        )
        cause = found.shortage.cause if found.shortage is not None else None
        keys = tuple(each.pool_id for each in gives_way)
        return Outlook(looker.pool_id, way, cause, takes, keys, found.measured.host_need_mib)

    def _taken(self, looker: Replica, room: DeviceRoom, need: Need, old: Replica | None) -> Taken:
        return Taken(
            device=room.uuid,
            need=need,
            reserve_mib=headroom.wanted_mib(room, need.mib) - need.mib,
            free_mib=room.free_mib,
            owed_mib=headroom.owed_on(room, self._replicas, looker),
            old_mib=0 if old is None else held_on(room, old),
        )


def without(measured: RoomMeasured, gone: Iterable[Replica]) -> RoomMeasured:
    """The same look, had these workers given back what they hold."""
    away = [each for each in gone if each.pid is not None]
    pids = {each.pid for each in away}
    rooms = tuple(
        structs.replace(
            room,
            free_mib=min(room.free_mib + sum(held_on(room, each) for each in away), room.total_mib),
            holders=tuple(holder for holder in room.holders if holder.pid not in pids),
        )
        for room in measured.devices
    )
    free_mib = measured.host_free_mib + sum(each.host_need_mib for each in away)
    return structs.replace(measured, devices=rooms, host_free_mib=free_mib)


def held_on(room: DeviceRoom, replica: Replica) -> int:
    """What a worker holds of a device, in MiB: as seen now, else the most that was seen, else what it was promised."""
    if replica.pid is None:
        return 0
    peak = dict(zip(replica.devices, replica.held, strict=False)).get(room.uuid, 0)
    claim = sum(mib for uuid, mib in replica.claims if uuid == room.uuid)
    return headroom.taken_on(room, replica) or peak or claim
