"""What happens to a core in a chaos run that it did not ask for: tasks, operators, leases, faults, other pools."""

from collections.abc import Callable
from random import Random

from msgspec import structs

from supervisor.core import events as ev
from supervisor.core.intent import LeaseNote
from supervisor.core.lifecycle import Phase
from supervisor.core.plan import PoolPlan
from supervisor.core.revisions import RolloutKind, name_key
from supervisor.core.state import State
from supervisor.wire.codes import QueueOrder
from tests.core.builders import GPU0, GPU1, make_plan, make_task
from tests.core.rollout_stage import share

DIGESTS = ["sha256:" + letter * 64 for letter in "abc"]
GPUS = {gpu.uuid: gpu for gpu in (GPU0, GPU1)}
FAULTS = [13, 31, 43, 45, 48, 62, 63, 74, 79, 94, 95, 119]
RUNNING = (Phase.LOADING, Phase.READY, Phase.TESTING)
Wish = Callable[[State, float], ev.Event | None]


def draw_plan(dice: Random, key: str) -> PoolPlan:
    return make_plan(
        key,
        slots=dice.choice([1, 2]),
        is_batch_invariant=dice.random() < 0.5,
        devices=dice.choice([(0,), (1,), (0,), (0, 1)]),
        model_digest=dice.choice(DIGESTS),
        ctx=dice.choice([4096, 4096, 8192]),
        probe_every_ms=dice.choice([None, 20_000]),
        model_refs=frozenset(dice.choice(["m", "mn"])),
    )


class Wishes:
    """Draws one after the other; gives none where what was drawn makes no sense now."""

    def __init__(self, dice: Random, *, is_mortal: bool = False) -> None:
        self._dice = dice
        self._count = 0
        self._recovery = dict.fromkeys(GPUS, 0)
        self._gone: set[str] = set()
        self._weights: dict[Wish, int] = {
            self._submit: 24,
            self._cancel: 1,
            self._drain: 1,
            self._resume: 2,
            self._roll: 3,
            self._promote: 1,
            self._abort: 1,
            self._roll_back: 1,
            self._lease: 1,
            self._give_back: 1,
            self._fault: 1,
            self._reset: 1,
            self._look: 4,
            self._change_pools: 2,
            self._quiesce: 1,
            self._exit: 1,
            self._test: 1,
            self._hold: 1,
            self._stall: 1,
            self._first_token: 2,
        }
        if is_mortal:
            self._weights |= {self._halt: 1, self._change_host: 1}

    def draw(self, state: State, now_ms: float) -> ev.Event | None:
        self._count += 1
        (wish,) = self._dice.choices(list(self._weights), list(self._weights.values()))
        return wish(state, now_ms)

    def inventory(self) -> ev.DevicesSeen:
        there = (structs.replace(gpu, recovery=self._recovery[uuid]) for uuid, gpu in GPUS.items())
        return ev.DevicesSeen(tuple(gpu for gpu in there if gpu.uuid not in self._gone))

    def heal(self, *, is_away: bool) -> ev.DevicesSeen:
        """Every GPU is well; `is_away`: and gone for this look, as after a reset."""
        self._recovery = dict.fromkeys(GPUS, 0)
        self._gone = set(GPUS) if is_away else set()
        return self.inventory()

    def _pool(self, state: State) -> str:
        return self._dice.choice(list(state.pools) or ["p0"])

    # Tasks

    def _submit(self, _: State, now_ms: float) -> ev.Event:
        dice = self._dice
        is_strict = dice.random() < 0.5
        return ev.TaskSubmitted(
            make_task(
                f"t{self._count}",
                batch=dice.random() < 0.3,
                strict=is_strict,
                model_ref=dice.choice("mn"),
                admitted_ms=now_ms,
                deadline_at_ms=now_ms + dice.choice([5e3, 1e6]),
                bucket=dice.randrange(10_000),
                prompt_bytes=dice.choice([100, 100, 2_030]),
                session=None if is_strict else dice.choice([None, b"s1", b"s2"]),
            )
        )

    def _cancel(self, state: State, _: float) -> ev.Event | None:
        return ev.CancelRequested("c", self._dice.choice(list(state.tasks))) if state.tasks else None

    def _stall(self, state: State, _: float) -> ev.Event | None:
        return ev.RunStalled(self._dice.choice(list(state.runs)), "idle") if state.runs else None

    def _first_token(self, state: State, _: float) -> ev.Event | None:
        return ev.FirstTokenCame(self._dice.choice(list(state.runs))) if state.runs else None

    # Operators

    def _drain(self, state: State, _: float) -> ev.Event:
        return ev.DrainRequested(self._pool(state), self._dice.choice([0.0, 5e3, 6e4]))

    def _resume(self, state: State, _: float) -> ev.Event:
        return ev.ResumeRequested(self._pool(state))

    def _test(self, state: State, _: float) -> ev.Event:
        return ev.SelfTestRequested("t", self._pool(state))

    def _quiesce(self, state: State, _: float) -> ev.Event | None:
        return ev.QuiesceRequested(self._dice.choice([0.0, 5e3])) if state.quiesce_deadline_ms is None else None

    def _halt(self, _: State, __: float) -> ev.Event:
        return ev.HaltRequested(self._dice.choice([0.0, 2e3, 2e4]))

    def _change_host(self, state: State, _: float) -> ev.Event:
        host = structs.replace(
            state.host, session_turns_max=self._dice.choice([2, 3]), sessions_max=self._dice.choice([1, 100])
        )
        return ev.PoolsChanged(ticket="t", generation=self._count, host=host)

    def _roll(self, state: State, _: float) -> ev.Event | None:
        pool_id = self._pool(state)
        if pool_id not in state.pools:
            return None
        kind = self._dice.choice([RolloutKind.RELOAD, RolloutKind.CONFIG, RolloutKind.CANARY])
        buckets, after = self._dice.choice([0, 2_000, 5_000]), self._dice.choice([None, 5])
        return ev.RolloutRequested(
            ticket="t",
            pool_id=pool_id,
            plan=draw_plan(self._dice, name_key(pool_id, state.pools[pool_id].next_revision)),
            kind=kind,
            drain_ms=self._dice.choice([0.0, 2e4]),
            canary=share(buckets, min_tasks=3, promote_after_tasks=after) if kind is RolloutKind.CANARY else None,
        )

    def _promote(self, state: State, _: float) -> ev.Event:
        return ev.RolloutPromoted("t", self._pool(state))

    def _abort(self, state: State, _: float) -> ev.Event:
        return ev.RolloutAborted("t", self._pool(state), "not today")

    def _roll_back(self, state: State, _: float) -> ev.Event:
        return ev.RollbackRequested("t", self._pool(state))

    def _change_pools(self, state: State, _: float) -> ev.Event:
        dice, pool_id = self._dice, self._pool(state)
        if dice.random() < 0.5 and pool_id in state.pools and len(state.pools) > 1:
            drain_ms = dice.choice([0.0, 1e4])
            return ev.PoolsChanged(ticket="t", generation=self._count, removed=(pool_id,), drain_ms=drain_ms)
        if dice.random() < 0.3 and state.replicas:
            plan = state.replicas[dice.choice(list(state.replicas))].plan
            order, every_ms = dice.choice(list(QueueOrder)), dice.choice([None, 10_000, 20_000])
            tuned = structs.replace(plan, queue_order=order, probe_every_ms=every_ms)
            return ev.PoolsChanged(ticket="t", generation=self._count, tuned=(tuned,))
        added = draw_plan(dice, dice.choice(["p3", "p4", "p1"]))
        return ev.PoolsChanged(ticket="t", generation=self._count, added=(added,), drain_ms=0.0)

    # Devices and processes

    def _lease(self, _: State, now_ms: float) -> ev.Event:
        expires_ms = now_ms + self._dice.choice([1e4, 1e5])
        devices = self._dice.choice([("GPU-0",), ("GPU-1",), ("GPU-0", "GPU-1")])
        note = LeaseNote(lease_id=f"l{self._count}", devices=devices, owner="o", purpose="", expires_ms=expires_ms)
        return ev.LeaseRequested("t", note, self._dice.choice([0.0, 1e4]))

    def _give_back(self, state: State, _: float) -> ev.Event | None:
        return ev.LeaseEnded(self._dice.choice(list(state.leases)), "given back") if state.leases else None

    def _fault(self, _: State, __: float) -> ev.Event:
        dice = self._dice
        return ev.DeviceFaulted(dice.choice(list(GPUS)), dice.choice(FAULTS), "nvml", dice.choice([None, 101, 105]))

    def _reset(self, _: State, __: float) -> ev.Event:
        return ev.DriverWasReset(tuple(GPUS), "a reset")

    def _look(self, _: State, __: float) -> ev.Event:
        self._recovery = {uuid: self._dice.choice([0] * 12 + [1, 3]) for uuid in GPUS}
        self._gone = {uuid for uuid in GPUS if self._dice.random() < 0.03}
        return self.inventory()

    def _exit(self, state: State, _: float) -> ev.Event | None:
        alive = [each for each in state.replicas.values() if each.phase in RUNNING]
        if not alive:
            return None
        replica = self._dice.choice(alive)
        kind = self._dice.choice(["crash", "oom_vram", "oom_host"])
        return ev.EngineExited(replica.pool_id, replica.incarnation, kind, "it is gone")

    def _hold(self, state: State, _: float) -> ev.Event:
        pids = [each.pid for each in state.replicas.values() if each.pid is not None]
        holders = {uuid: tuple(ev.Holder(pid, self._dice.choice([4_000, 8_000])) for pid in pids) for uuid in GPUS}
        return ev.MemoryHeld(tuple(holders.items()))
