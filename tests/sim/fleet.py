"""The simulated workers perform the worker effects, each with its fate. Reports come late, and some come twice."""

from dataclasses import dataclass, field
from math import isinf

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.plan import PoolPlan
from tests.sim.fates import End, Fate, WorkerLot, draw_worker
from tests.sim.memory import Memory, pid_of
from tests.sim.streams import Run, Streams
from tests.sim.world import World

CTX = 4096
REPEAT_SHARE = 0.08
STALE_MS_MAX = 20_000.0
SHORT_SHARE = 0.1
SILENT_SHARE = 0.3

Key = tuple[str, int]


@dataclass
class Worker:
    """One process."""

    lot: WorkerLot
    is_alive: bool = False
    is_stopping: bool = False
    busy: set[int] = field(default_factory=set)


class Fleet:
    """All workers of the living daemon, by pool and incarnation."""

    def __init__(self, world: World, streams: Streams, memory: Memory) -> None:
        self._world, self._streams, self._memory = world, streams, memory
        self._plans: dict[str, PoolPlan] = {plan.pool_id: plan for plan in world.plans}
        self.versions = dict.fromkeys(self._plans, "b100")
        self.workers: dict[Key, Worker] = {}
        self.is_stormy = True
        world.hands |= {
            ef.VerifyModel: self._verify,
            ef.MeasureRoom: self._measure,
            ef.SpawnEngine: self._spawn,
            ef.AwaitHealth: self._await_health,
            ef.InspectEngine: self._inspect,
            ef.RunSelfTest: self._test,
            ef.ProbeEngine: self._probe,
            ef.StopEngine: self._stop,
            ef.StartRun: self._start_run,
            ef.ConfirmSlotIdle: self._confirm_idle,
            ef.CountTokens: self._count_tokens,
            ef.ProbeIdleEngine: self._probe_idle,
        }

    def learn(self, plan: PoolPlan) -> None:
        """Another revision of a pool, which may be started."""
        self._plans[plan.pool_id] = plan
        self.versions[plan.pool_id] = "b100"

    def calm(self) -> None:
        self.is_stormy = self._streams.is_stormy = False
        self._memory.calm()

    # Reports

    def _report(self, event: ev.Event, delay_ms: float = 0) -> None:
        """A fact reaches the core, at once or after a while; in a storm some come again, much later."""
        dice = self._world.dice
        if delay_ms:
            self._world.after(delay_ms, lambda: self._world.post(event))
        else:
            self._world.post(event)
        if self.is_stormy and dice.random() < REPEAT_SHARE:
            self._world.after(delay_ms + dice.uniform(0, STALE_MS_MAX), lambda: self._world.post(event))

    def _report_step(self, key: Key, event: ev.Event, delay_ms: float) -> None:
        """The end of a step: a stop cuts it short, though not always in time."""
        worker = self.workers[key]
        is_late = self.is_stormy and self._world.dice.random() < 0.3

        def happen() -> None:
            if is_late or not worker.is_stopping:
                self._report(event)

        self._world.after(delay_ms, happen)

    # Steps

    def _verify(self, effect: ef.VerifyModel) -> None:
        key = (effect.pool_id, effect.incarnation)
        worker = self.workers[key] = Worker(draw_worker(self._world.dice, is_stormy=self.is_stormy))
        digest = self._plans[effect.pool_id].model_digest or ""
        event: ev.Event = ev.ModelVerified(*key, digest)
        if worker.lot.fate is Fate.WRONG_DIGEST:
            event = ev.StepFailed(*key, "the digest differs")
        self._report_step(key, event, self._world.dice.uniform(1, 300))

    def _measure(self, effect: ef.MeasureRoom) -> None:
        key, dice = (effect.pool_id, effect.incarnation), self._world.dice
        is_short = self.is_stormy and dice.random() < SHORT_SHARE
        measured = self._memory.look(key, effect.devices, self._recipe_of(effect.pool_id), is_short=is_short)
        self._report_step(key, measured, dice.uniform(1, 100))

    def _recipe_of(self, pool_id: str) -> str:
        plan = self._plans[pool_id]
        return f"{plan.model_digest} {plan.ctx} {plan.slots} {len(plan.devices)}"

    def _spawn(self, effect: ef.SpawnEngine) -> None:
        key = (effect.pool_id, effect.incarnation)
        worker = self.workers[key]

        def happen() -> None:
            if worker.lot.fate is Fate.SPAWN_FAILS:
                self._report(ev.StepFailed(*key, "no such file"))
                return
            worker.is_alive = True
            self._memory.take(key, effect.devices, self._recipe_of(effect.pool_id))
            self._report(ev.EngineSpawned(*key, pid=pid_of(key), port=9_000 + key[1]))
            self._report(self._memory.tell())
            if worker.lot.fate is Fate.CRASH_AT_LOAD:
                kind = self._memory.draw_end()
                self._world.after(worker.lot.load_ms, lambda: self.die(key, kind))

        self._world.after(self._world.dice.uniform(2, 100), happen)

    def _await_health(self, effect: ef.AwaitHealth) -> None:
        key = (effect.pool_id, effect.incarnation)
        if self.workers[key].lot.fate not in (Fate.NEVER_HEALTHY, Fate.CRASH_AT_LOAD):
            self._report_step(key, ev.EngineHealthy(*key), self.workers[key].lot.load_ms)

    def _inspect(self, effect: ef.InspectEngine) -> None:
        key = (effect.pool_id, effect.incarnation)
        slots = self._plans[effect.pool_id].slots - (self.workers[key].lot.fate is Fate.TOO_FEW_SLOTS)
        event = ev.EngineInspected(*key, self.versions[effect.pool_id], slots, CTX)
        self._report_step(key, event, self._world.dice.uniform(1, 50))

    def _test(self, effect: ef.RunSelfTest) -> None:
        key, worker = (effect.pool_id, effect.incarnation), self.workers[effect.pool_id, effect.incarnation]
        took_ms = self._world.dice.uniform(50, 500)
        if worker.lot.fate is Fate.TEST_HANGS:
            return
        if worker.lot.fate is Fate.TEST_FAILS:
            self._report_step(key, ev.StepFailed(*key, "no token came"), took_ms)
            return
        self._report_step(key, ev.StepPassed(*key, "minimal decode", took_ms / 2), took_ms / 2)
        self._report_step(key, ev.EngineTested(*key), took_ms)
        if worker.lot.fate is Fate.CRASH_LATER:
            self._world.after(took_ms + worker.lot.crash_after_ms, lambda: self.die(key))

    def _probe(self, effect: ef.ProbeEngine) -> None:
        """After a fault of its GPU a worker gives a token, or none any more."""
        dice = self._world.dice
        is_silent = self.is_stormy and dice.random() < SILENT_SHARE
        event = ev.EngineProbed(effect.pool_id, effect.incarnation, "no token came" if is_silent else None)
        self._report(event, dice.uniform(1, 5_000))

    def _stop(self, effect: ef.StopEngine) -> None:
        key = (effect.pool_id, effect.incarnation)
        worker = self.workers[key]
        worker.is_stopping = True

        def happen() -> None:
            worker.is_alive = False
            self._memory.give_back(key)
            self.workers.pop(key, None)
            self._report(ev.EngineStopped(*key))

        self._world.after(worker.lot.stop_ms + 100, happen)  # a spawn that is under way is over by then

    # Deaths

    def die(self, key: Key, kind: str = "crash") -> None:
        """The process is gone; its connections and its exit are noticed in either order."""
        worker = self.workers.get(key)
        if worker is None or not worker.is_alive:
            return
        worker.is_alive = False
        self._memory.give_back(key)
        dice = self._world.dice
        for run in [run for run in self._streams.runs.values() if (run.pool_id, run.incarnation) == key]:
            self._lose(run, dice.uniform(0, 40))
        if not worker.is_stopping:
            self._report(ev.EngineExited(*key, kind, "it crashed"), dice.uniform(0, 80))

    def _lose(self, run: Run, delay_ms: float) -> None:
        run.count = run.tokens_at(self._world.now)  # no other token comes

        def happen() -> None:
            if self._streams.pop(run.run_id) is not None:
                self._fail_run(run, is_worker_lost=True)

        self._world.after(delay_ms, happen)

    def _fail_run(self, run: Run, *, is_worker_lost: bool = False, end: End = End.ENGINE_ERROR) -> None:
        emitted = self._streams.emitted.get(run.task.job_id, 0)
        event = ev.RunFailed(
            run.run_id,
            "token_budget" if end is End.REFUSED else "engine",
            "it broke",
            emitted,
            is_client_fault=end is End.REFUSED,
            is_worker_lost=is_worker_lost,
            is_busy=end is End.BUSY,
        )
        self._report(event)

    # Runs

    def _start_run(self, effect: ef.StartRun) -> None:
        key = (effect.pool_id, effect.incarnation)
        worker = self.workers.get(key)
        if worker is None or not worker.is_alive:
            emitted = self._streams.emitted.get(effect.task.job_id, 0)
            event = ev.RunFailed(effect.run_id, "engine", "unreachable", emitted, is_worker_lost=True, is_unseen=True)
            self._world.post(event)
            return
        run, end, last_ms = self._streams.start(effect)
        if worker.lot.fate is Fate.ROTTEN and self.is_stormy:
            end, last_ms = End.ENGINE_ERROR, 20.0
        if not isinf(last_ms):
            self._world.after(last_ms, lambda: self._end_run(run, end, key, effect.idle_ms))

    def _end_run(self, run: Run, end: End, key: Key, idle_ms: int) -> None:
        if run.run_id not in self._streams.runs:
            return
        match end:
            case End.FINISHED:
                finished = self._streams.finish(run.run_id)
                assert finished is not None
                self._report(finished)
            case End.STALL:
                if run.count:  # the idle watchdog starts at the first token; before it only the wall helps
                    self._world.after(idle_ms, lambda: self._stall(run))
            case End.CRASH:
                self.die(key)
            case End.CUT:
                self._lose(run, 0)
            case _:
                self._streams.pop(run.run_id)
                self._fail_run(run, end=end)

    def _stall(self, run: Run) -> None:
        if run.run_id in self._streams.runs:
            self._report(ev.RunStalled(run.run_id, "idle"))

    def _confirm_idle(self, effect: ef.ConfirmSlotIdle) -> None:
        key, dice = (effect.pool_id, effect.incarnation), self._world.dice
        worker = self.workers.get(key)
        if worker is None:
            return
        is_stuck = not worker.is_alive or (worker.lot.is_sticky and dice.random() < 0.5)
        delay_ms = effect.within_ms if is_stuck else dice.uniform(5, 1_500)

        def happen() -> None:
            if worker.is_stopping:
                return
            if is_stuck or not worker.is_alive:
                self._report(ev.SlotStuck(*key, effect.run_id))
            else:
                self._report(ev.SlotsSeenIdle(*key, (effect.run_id,)))

        self._world.after(delay_ms, happen)

    def _probe_idle(self, effect: ef.ProbeIdleEngine) -> None:
        key, dice = (effect.pool_id, effect.incarnation), self._world.dice
        worker = self.workers.get(key)
        if worker is None:
            return
        is_silent = worker.lot.fate is Fate.ROTTEN and self.is_stormy
        cause = "no token came" if is_silent else None
        self._report_step(key, ev.IdleEngineProbed(*key, effect.run_id, cause), dice.uniform(5, 2_000))

    def _count_tokens(self, effect: ef.CountTokens) -> None:
        dice = self._world.dice
        tokens = None if self.is_stormy and dice.random() < 0.1 else max(effect.task.prompt_bytes // 3, 1)
        self._report(ev.TokensCounted(effect.task.job_id, tokens), dice.uniform(1, 1_000))

    def crash(self) -> None:
        """The daemon is gone; its orphans are ended before the next one begins."""
        self.workers.clear()
        self._memory.held.clear()
