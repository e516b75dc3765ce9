"""A runtime without time or dice: it remembers what the core asked for, and answers when it is told to.

Each promise of an effect ("ends in ...") is an open item here until some rule closes it. What the contract calls "at
once" is done at once. Reports that were given before can be given again.
"""

from dataclasses import dataclass, field

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.conductor import Conductor
from supervisor.core.invariants import violations
from supervisor.core.plan import HostPlan, PoolPlan
from supervisor.core.tasks import Task
from supervisor.wire.codes import FinishReason
from tests.core.ledger import Ledger
from tests.core.oracle import Oracle

CTX = 4096
Step = ef.VerifyModel | ef.MeasureRoom | ef.SpawnEngine | ef.AwaitHealth | ef.InspectEngine | ef.RunSelfTest


@dataclass
class Live:
    """A run of an engine, and how many tokens it gave."""

    effect: ef.StartRun
    tokens: int = 0


@dataclass
class HonestRuntime:
    """Feeds one conductor. Every event is judged by the oracle and by the core's own invariants."""

    plans: tuple[PoolPlan, ...]
    host: HostPlan
    now: float = 0.0
    accepts: list[str] = field(default_factory=list)
    finishes: list[str] = field(default_factory=list)
    counting: list[Task] = field(default_factory=list)
    steps: dict[str, Step] = field(default_factory=dict)
    stops: dict[str, ef.StopEngine] = field(default_factory=dict)
    confirms: list[ef.ConfirmSlotIdle] = field(default_factory=list)
    live: dict[int, Live] = field(default_factory=dict)
    emitted: dict[str, int] = field(default_factory=dict)
    reports: list[ev.Event] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    releases: list[ef.VerifyRelease] = field(default_factory=list)
    is_halted: bool = False
    is_broken: bool = False

    def __post_init__(self) -> None:
        self.core = Conductor(self.plans, self.host)
        self.ledger = Ledger()
        self.oracle = Oracle(self.plans, self.ledger, self.host)

    def give(self, event: ev.Event) -> None:
        """Hand in an event, perform what follows, and check everything."""
        self.is_broken = True
        self.oracle.note_event(event, self.now)
        effects = self.core.handle(event, self.now)
        self.oracle.note_effects(effects)
        for effect in effects:
            self._perform(effect)
        for effect in effects:
            if isinstance(effect, ef.AbortRun):
                self._abort(effect.run_id)
        assert violations(self.core.state, self.now) == []
        self.is_broken = False

    def report(self, event: ev.Event) -> None:
        """An event that may come again later, when it says nothing new."""
        self.reports.append(event)
        self.give(event)

    def _perform(self, effect: ef.Effect) -> None:
        match effect:
            case ef.CommitAccept(task=task):
                self.accepts.append(task.job_id)
            case ef.CommitFinish(task=task, outcome=outcome):
                assert outcome.emitted == self.emitted.get(task.job_id, 0)
                self.finishes.append(task.job_id)
                self.ledger.end(task.job_id, outcome)
            case ef.AnswerAccepted(job_id=job_id):
                self.accepted.append(job_id)
            case ef.CountTokens(task=task):
                self.counting.append(task)
            case ef.StartRun(run_id=run_id):
                self.live[run_id] = Live(effect)
            case ef.ConfirmSlotIdle():
                self.confirms.append(effect)
            case ef.StopEngine(pool_id=pool_id):
                self.steps.pop(pool_id, None)
                self.stops[pool_id] = effect
                self.confirms = [each for each in self.confirms if each.pool_id != pool_id]
            case (
                ef.VerifyModel()
                | ef.MeasureRoom()
                | ef.SpawnEngine()
                | ef.AwaitHealth()
                | ef.InspectEngine()
                | ef.RunSelfTest()
            ):
                self.steps[effect.pool_id] = effect
            case _:
                self._perform_of_pools(effect)

    def _perform_of_pools(self, effect: ef.Effect) -> None:
        match effect:
            case ef.VerifyRelease():
                self.releases.append(effect)
            case ef.ForgetWorker(key=key):
                assert key not in self.stops, f"{key} is forgotten while it stops"
                self.steps.pop(key, None)
            case ef.CompleteHalt():
                self.is_halted = True
            case _:
                pass

    def _abort(self, run_id: int) -> None:
        run = self.live.pop(run_id)
        emitted = self._stream(run)
        self.report(ev.RunAborted(run_id, None, emitted, emitted, 1.0))

    def _stream(self, run: Live) -> int:
        job_id = run.effect.task.job_id
        self.emitted[job_id] = max(self.emitted.get(job_id, 0), run.tokens)
        return self.emitted[job_id]

    # What a rule can let happen

    def flush(self) -> None:
        """Everything that was on its way is on disk."""
        accepts, self.accepts = tuple(self.accepts), []
        finishes, self.finishes = tuple(self.finishes), []
        if accepts:
            self.give(ev.AcceptsCommitted(accepts))
        if finishes:
            self.give(ev.FinishesCommitted(finishes, tuple(50 for _ in finishes)))

    def fail_flush(self) -> None:
        """The disk is full: no accept is on it; ends are shown nonetheless."""
        accepts, self.accepts = tuple(self.accepts), []
        self.give(ev.JournalChanged(is_writable=False, cause="full"))
        if accepts:
            self.give(ev.AcceptsFailed(accepts))
        self.flush()

    def pass_step(self, pool_id: str, version: str) -> None:
        """The step under way succeeds."""
        step = self.steps.pop(pool_id)
        key = (step.pool_id, step.incarnation)
        slots = self.core.state.replicas[pool_id].plan.slots
        done: dict[type[Step], ev.Event] = {
            ef.VerifyModel: ev.ModelVerified(*key, "sha256:x"),
            ef.MeasureRoom: ev.RoomMeasured(*key, (), 1, 0),
            ef.SpawnEngine: ev.EngineSpawned(*key, 1, 2),
            ef.AwaitHealth: ev.EngineHealthy(*key),
            ef.InspectEngine: ev.EngineInspected(*key, version, slots, CTX),
            ef.RunSelfTest: ev.EngineTested(*key),
        }
        self.report(done[type(step)])

    def be_short(self, pool_id: str) -> None:
        """Memory is measured, and there is too little of it."""
        step = self.steps.pop(pool_id)
        assert isinstance(step, ef.MeasureRoom), step
        rooms = tuple(ev.DeviceRoom(uuid, 80_000, 1_000, 8_000) for uuid in step.devices)
        self.report(ev.RoomMeasured(step.pool_id, step.incarnation, rooms, 64_000, 1_000))

    def release(self, cause: str | None) -> None:
        """The GPUs of a lease were looked at."""
        self.report(ev.ReleaseVerified(self.releases.pop(0).lease_id, cause))

    def fail_step(self, pool_id: str) -> None:
        step = self.steps.pop(pool_id)
        self.report(ev.StepFailed(step.pool_id, step.incarnation, "it failed"))

    def die(self, pool_id: str) -> None:
        """The process exits; its runs are still to be noticed."""
        incarnation = self.core.state.replicas[pool_id].incarnation
        self.report(ev.EngineExited(pool_id, incarnation, "crash", "it crashed"))

    def end_stop(self, pool_id: str) -> None:
        stop = self.stops.pop(pool_id)
        self.report(ev.EngineStopped(stop.pool_id, stop.incarnation))

    def finish_run(self, run_id: int) -> None:
        emitted = self._stream(self.live.pop(run_id))
        self.report(ev.RunFinished(run_id, FinishReason.STOP, 1, emitted, emitted, 1.0))

    def fail_run(self, run_id: int, *, end: str) -> None:
        emitted = self._stream(self.live.pop(run_id))
        event = ev.RunFailed(
            run_id,
            "engine",
            "it broke",
            emitted,
            is_worker_lost=end == "lost",
            is_client_fault=end == "refused",
            is_busy=end == "busy",
        )
        self.report(event)

    def confirm(self, index: int, *, is_idle: bool) -> None:
        asked = self.confirms.pop(index)
        if is_idle:
            self.report(ev.SlotsSeenIdle(asked.pool_id, asked.incarnation, (asked.run_id,)))
        else:
            self.report(ev.SlotStuck(asked.pool_id, asked.incarnation, asked.run_id))

    def count(self, *, is_known: bool) -> None:
        task = self.counting.pop(0)
        self.report(ev.TokensCounted(task.job_id, 5 if is_known else None))

    def pass_ms(self, ms: float) -> None:
        """Time passes, and the timer is kept to the moment."""
        until = self.now + ms
        while not self.is_halted and (due := self.core.next_due_ms()) is not None and due <= until:
            self.now = max(self.now, due)
            self.give(ev.TimePassed())
        self.now = until
