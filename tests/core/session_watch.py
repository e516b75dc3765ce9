"""What must be true of sessions, judged from outside: the oracle's own picture of what lies in every slot.

Naive on purpose: it keeps all lives of all sessions and what each slot holds, and looks through them each time.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.plan import HostPlan, PoolPlan
from supervisor.core.tasks import Outcome, Task
from supervisor.wire.codes import FinishReason
from tests.core.ledger import demand

GAP_MAX = 1
Key = tuple[str, bytes]


@dataclass(eq=False)
class Life:
    """One life of a session. `is_over`: nothing of it may ever be found again."""

    key: Key
    expires_ms: float
    turns: int = 0
    is_deleted: bool = False
    is_over: bool = False
    counted: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Run:
    """A run, its slot, and the life that it is a turn of."""

    task: Task
    slot: int | None
    life: Life | None
    is_warm: bool
    is_finished: bool = False
    is_refused: bool = False


@dataclass
class Worker:
    """One engine process: what lies in its slots (oldest first), and who runs. `has_failed`: it may be shunned."""

    plan: PoolPlan
    incarnation: int = 0
    slots: int = 0
    version: str = ""
    is_drained: bool = False
    has_failed: bool = False
    held: OrderedDict[int, Life] = field(default_factory=OrderedDict)
    runs: dict[int, Run] = field(default_factory=dict)

    def drop(self, life: Life) -> None:
        for slot in [slot for slot, each in self.held.items() if each is life]:
            del self.held[slot]

    @property
    def busy(self) -> set[int]:
        return {run.slot for run in self.runs.values() if run.slot is not None}

    @property
    def is_exclusive(self) -> bool:
        plan = self.plan
        return self.slots > 1 and any(r.task.is_strict and not plan.is_batch_invariant for r in self.runs.values())


class SessionWatch:
    """Watches the sessions of one daemon."""

    def __init__(self, plans: tuple[PoolPlan, ...], host: HostPlan) -> None:
        self._host = host
        self._workers = {plan.pool_id: Worker(plan) for plan in plans}
        self._lives: OrderedDict[Key, Life] = OrderedDict()
        self._known: set[str] = set()
        self._now = 0.0

    def note_event(self, event: ev.Event, now_ms: float) -> None:
        self._now = now_ms
        for life in [life for life in self._lives.values() if life.expires_ms <= now_ms]:
            self._end(life)
        new = event.added if isinstance(event, ev.PoolsChanged) else ()
        if isinstance(event, ev.RolloutRequested):
            new = (event.plan,)
        for plan in new:
            self._workers.setdefault(plan.pool_id, Worker(plan))
        match event:
            case ev.EngineInspected(pool_id=pool_id, incarnation=incarnation):
                worker = self._workers[pool_id]
                if worker.incarnation == incarnation:
                    worker.slots, worker.version = event.slots, event.engine_version
            case ev.DrainRequested(pool_id=pool_id):
                self._drain(pool_id, is_drained=True)
            case ev.ResumeRequested(pool_id=pool_id):
                self._drain(pool_id, is_drained=False)
            case ev.SessionEndRequested(tenant=tenant, session=session):
                if (ended := self._lives.get((tenant, session))) is not None:
                    self._forget(ended)
                    ended.is_deleted = True
            case _:
                self._note_run(event)

    def _note_run(self, event: ev.Event) -> None:
        match event:
            case ev.RunFinished(run_id=run_id):
                self._finish(run_id, is_kept=True)
                self._free(run_id)
            case ev.RunFailed(run_id=run_id, is_client_fault=is_client_fault):
                self._fail(run_id)
                if event.is_busy:
                    self._refuse(run_id)
                if is_client_fault:
                    self._free(run_id)
            case ev.RunStalled(run_id=run_id):
                self._fail(run_id)
            case ev.SlotsSeenIdle(run_ids=run_ids):
                for run_id in run_ids:
                    self._free(run_id)

    def note_effect(self, effect: ef.Effect) -> None:
        match effect:
            case ef.StartRun():
                self._start(effect)
            case ef.StopEngine(pool_id=pool_id):
                worker = self._workers[pool_id]
                self._leave(worker, is_drained=worker.is_drained)
                worker.runs.clear()
            case ef.VerifyModel(pool_id=pool_id, incarnation=incarnation):
                self._workers[pool_id].incarnation = incarnation
            case ef.CommitFinish(task=task, outcome=outcome):
                self._judge_end(task, outcome)

    # Runs

    def _find(self, run_id: int) -> tuple[Worker, Run] | None:
        return next(((w, w.runs[run_id]) for w in self._workers.values() if run_id in w.runs), None)

    def _fail(self, run_id: int) -> None:
        if (found := self._find(run_id)) is not None:
            found[0].has_failed = True

    def _refuse(self, run_id: int) -> None:
        """The engine never began it: what lay in its slot still does, and it was no turn, unless an earlier run was."""
        if (found := self._find(run_id)) is None:
            return
        _, run = found
        run.is_refused = True
        run.is_finished = run.is_warm
        life = self._lives.get((run.task.tenant, run.task.session)) if run.task.session is not None else None
        if life is not None and run.task.job_id in life.counted and not self._is_rerun(run):
            life.counted.remove(run.task.job_id)
            life.turns -= 1

    @staticmethod
    def _is_rerun(run: Run) -> bool:
        return run.task.attempt - run.task.turned_away > 1

    def _finish(self, run_id: int, *, is_kept: bool) -> None:
        if (found := self._find(run_id)) is not None:
            found[1].is_finished = is_kept

    def _free(self, run_id: int) -> None:
        """The slot is free; what the run put there stays, if it was the last turn of a life that goes on."""
        if (found := self._find(run_id)) is None:
            return
        worker, run = found
        del worker.runs[run_id]
        life = run.life
        is_of_use = life is not None and not life.is_over and life.turns < self._host.session_turns_max
        if run.is_finished and is_of_use and life is not None and run.slot is not None and not worker.is_drained:
            worker.held[run.slot] = life

    def _leave(self, worker: Worker, *, is_drained: bool) -> None:
        """Nothing in its slots is of use any more, and nothing that runs there will be."""
        worker.is_drained = is_drained
        worker.held.clear()
        for run in worker.runs.values():
            run.life = None

    # Lives

    def _forget(self, life: Life) -> None:
        life.is_over = True
        for worker in self._workers.values():
            worker.drop(life)

    def _end(self, life: Life) -> None:
        self._forget(life)
        del self._lives[life.key]

    def _life_of(self, task: Task) -> Life:
        assert task.session is not None
        key = (task.tenant, task.session)
        life = self._lives.get(key)
        if life is not None and (life.is_deleted or life.turns >= self._host.session_turns_max):
            self._end(life)
            life = None
        if life is None:
            if len(self._lives) >= self._host.sessions_max:
                self._end(next(iter(self._lives.values())))
            life = self._lives[key] = Life(key, self._now + self._host.session_ttl_ms)
        self._lives.move_to_end(key)
        return life

    def _drain(self, pool_id: str, *, is_drained: bool) -> None:
        for worker in self._of(pool_id):
            if is_drained:
                self._leave(worker, is_drained=True)
            else:
                worker.is_drained = False

    def _of(self, pool_id: str) -> list[Worker]:
        """All revisions of a pool, by the name of any."""
        name = pool_id.partition("+")[0]
        return [worker for worker in self._workers.values() if worker.plan.public_id == name]

    # Judgement

    def _start(self, effect: ef.StartRun) -> None:
        task, worker = effect.task, self._workers[effect.pool_id]
        name = f"run {effect.run_id} of {task.job_id} in slot {effect.slot} of {effect.pool_id}"
        if not worker.plan.can_pin_slots:
            return
        demand(that=effect.slot not in worker.busy, sentence=f"{name}: it is taken")
        if task.session is None:
            demand(that=not effect.kv_warmth, sentence=f"{name}: warm without a session")
            self._judge_victim(name, effect, worker)
            worker.runs[effect.run_id] = Run(task, effect.slot, None, is_warm=False)
            return
        life = self._life_of(task)
        home = next(((w, slot) for w in self._workers.values() for slot, each in w.held.items() if each is life), None)
        if effect.kv_warmth:
            demand(that=home == (worker, effect.slot), sentence=f"{name}: the KV of {life} lies in {home}")
        else:
            self._judge_cold(name, worker, home)
            self._judge_victim(name, effect, worker, life)
        if task.job_id not in life.counted:
            life.counted.add(task.job_id)
            life.turns += 1
        for each in self._workers.values():
            each.drop(life)
            for run in each.runs.values():
                run.life = None if run.life is life else run.life
        worker.held.pop(effect.slot if effect.slot is not None else -1, None)
        worker.runs[effect.run_id] = Run(task, effect.slot, life, is_warm=effect.kv_warmth)

    def _judge_cold(self, name: str, worker: Worker, home: tuple[Worker, int] | None) -> None:
        """Cold only where there is no KV, or its worker is another one that cannot, may not or should not."""
        if home is None:
            return
        other = home[0]
        demand(that=other is not worker, sentence=f"{name}: cold beside its KV in slot {home[1]}")
        is_alike = other.version == worker.version and other.plan.model_digest == worker.plan.model_digest
        is_able = is_alike and not other.is_exclusive and not other.has_failed and not other.is_drained
        gap = len(other.runs) - len(worker.runs)
        demand(that=not is_able or gap > GAP_MAX, sentence=f"{name}: cold, and its KV lies in {other.plan.pool_id}")

    def _judge_victim(self, name: str, effect: ef.StartRun, worker: Worker, life: Life | None = None) -> None:
        """KV of a session is overwritten only where no cold slot is free, and then the one of the oldest use."""
        if effect.slot is None or effect.slot not in worker.held:
            return
        is_forced = effect.task.is_strict and worker.slots > 1 and not worker.plan.is_batch_invariant
        cold = set(range(worker.slots)) - worker.busy - set(worker.held)
        cold |= {slot for slot, each in worker.held.items() if each is life}
        oldest = next(iter(worker.held))
        demand(that=is_forced or not cold, sentence=f"{name}: it is warm, and {cold} are cold")
        demand(that=is_forced or oldest == effect.slot, sentence=f"{name}: slot {oldest} is the one of the oldest use")
        del worker.held[effect.slot]

    def _judge_end(self, task: Task, outcome: Outcome) -> None:
        for worker in self._workers.values():
            for run in worker.runs.values():
                if run.task is not task:
                    continue
                if outcome.error is not None:
                    worker.has_failed = True
                if outcome.finish_reason is FinishReason.CANCELED and not run.is_refused:
                    run.is_finished = outcome.tokens_out > 0
                    demand(that=run.is_warm or not outcome.kv_warmth, sentence=f"{task.job_id} ended warm, began cold")
