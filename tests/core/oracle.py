"""What must be true of any conductor, judged from outside: by its events and effects, with a memory of its own.

It never looks into the core's state. One `Oracle` watches one life of a daemon; its `Ledger` outlives daemons.
"""

from collections import Counter
from dataclasses import dataclass

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.plan import HostPlan, PoolPlan
from supervisor.core.tasks import Outcome, Task
from tests.core.lease_watch import LeaseWatch
from tests.core.ledger import Ledger, demand
from tests.core.session_watch import SessionWatch
from tests.core.tenant_watch import TenantWatch
from tests.core.trust_watch import TrustWatch
from tests.core.worker_watch import WorkerWatch

Operation = (
    ev.RolloutRequested
    | ev.RolloutPromoted
    | ev.RolloutAborted
    | ev.RollbackRequested
    | ev.CanaryShared
    | ev.PoolsChanged
    | ev.LeaseRequested
)
Answer = ef.AnswerAccepted | ef.AnswerRefused | ef.AnswerCancelled | ef.AnswerRollout | ef.AnswerLease
RunEnd = ev.RunFinished | ev.RunFailed | ev.RunAborted


@dataclass
class _Life:
    """One task in one daemon. `was_over`: it ended under an earlier one."""

    task: Task
    is_on_disk: bool = False
    is_restored: bool = False
    was_over: bool = False
    is_cancelled: bool = False
    run: int | None = None
    starts: int = 0
    turned_away: int = 0
    emitted: int = 0
    outcome: Outcome | None = None


class Oracle:
    """Watches one daemon. Raises BrokenPromiseError."""

    def __init__(self, plans: tuple[PoolPlan, ...], ledger: Ledger, host: HostPlan | None = None) -> None:
        self._host = host or HostPlan()
        self._ledger = ledger
        self._watch = WorkerWatch(plans)
        self._leases = LeaseWatch(self._watch.workers)
        self._sessions = SessionWatch(plans, self._host)
        self._tenants = TenantWatch(plans, self._host)
        self._trust = TrustWatch(tuple(plan.pool_id for plan in plans))
        self._starts: dict[int, ef.StartRun] = {}
        self._lives: dict[str, _Life] = {}
        self._runs: dict[int, tuple[str, str]] = {}
        self._aborted: set[int] = set()
        self._open_tickets: set[str] = set()
        self._is_halting = False
        self._now = 0.0

    # Events, before the core sees them

    def note_event(self, event: ev.Event, now_ms: float) -> None:
        self._now = now_ms
        self._sessions.note_event(event, now_ms)
        self._tenants.note_event(event, now_ms)
        self._leases.note_event(event)
        if isinstance(event, Operation):
            self._note_rollout(event)
            return
        match event:
            case ev.TaskSubmitted(task=task):
                self._open_tickets.add(task.job_id)
            case ev.CancelRequested(ticket=ticket, job_id=job_id):
                self._open_tickets.add(ticket)
                self._lives[job_id].is_cancelled = True
            case ev.AcceptsCommitted() | ev.AcceptsFailed():
                self._note_disk(event)
            case ev.TasksRestored(unfinished=unfinished, finished=finished):
                lives = [_Life(task, is_on_disk=True, is_restored=True, emitted=task.emitted) for task in unfinished]
                lives += [_Life(task, is_on_disk=True, was_over=True) for task, _ in finished]
                self._lives |= {life.task.job_id: life for life in lives}
            case ev.HaltRequested():
                self._is_halting = True
            case ev.ResumeRequested(pool_id=pool_id):
                self._trust.resume(pool_id)
                self._watch.note_event(event)
            case ev.RunFinished() | ev.RunFailed() | ev.RunAborted():
                self._end_run(event)
            case _:
                self._watch.note_event(event)

    def _note_rollout(self, event: Operation) -> None:
        self._open_tickets.add(event.ticket)
        self._watch.note_event(event)
        if isinstance(event, ev.RolloutRequested):
            self._trust.learn(event.plan.pool_id)
        if isinstance(event, ev.PoolsChanged):
            for plan in event.added:
                self._trust.learn(plan.pool_id)

    def _note_disk(self, event: ev.AcceptsCommitted | ev.AcceptsFailed) -> None:
        for job_id in event.job_ids:
            if isinstance(event, ev.AcceptsCommitted):
                self._lives[job_id].is_on_disk = True
            else:
                del self._lives[job_id]

    def _end_run(self, event: RunEnd) -> None:
        found = self._runs.pop(event.run_id, None)
        if found is None:
            return
        job_id, pool_id = found
        life = self._lives[job_id]
        start = self._starts.pop(event.run_id)
        if isinstance(event, ev.RunFailed):
            life.turned_away += event.is_busy or event.is_unseen
        if not isinstance(event, ev.RunAborted) and self._watch.is_ready(pool_id, start.incarnation):
            is_cancelled = life.is_cancelled or event.run_id in self._aborted
            self._trust.end_run(start, event, is_cancelled=is_cancelled)
        life.run, life.emitted = None, max(life.emitted, event.emitted)
        is_proven_free = isinstance(event, ev.RunFinished) or (
            isinstance(event, ev.RunFailed) and event.is_client_fault
        )
        self._watch.give_slot_back(pool_id, event.run_id, is_proven_free=is_proven_free)

    # Effects, in order

    def note_effects(self, effects: list[ef.Effect]) -> None:
        for effect in effects:
            match effect:
                case ef.AnswerAccepted() | ef.AnswerRefused() | ef.AnswerCancelled():
                    self._answer(effect)
                case ef.AnswerRollout() | ef.AnswerLease():
                    self._answer(effect)
                case ef.CommitAccept() | ef.CommitFinish() | ef.Forget():
                    self._write(effect)
                case ef.StartRun():
                    self._start(effect)
                case ef.AbortRun(run_id=run_id):
                    demand(that=run_id in self._runs, sentence=f"run {run_id} is aborted, and is over")
                    demand(that=run_id not in self._aborted, sentence=f"run {run_id} is aborted twice")
                    self._aborted.add(run_id)
                case ef.CompleteHalt():
                    demand(that=self._is_halting, sentence="a halt is complete that nobody asked for")
                    demand(that=not self._runs, sentence=f"runs outlive the halt: {self._runs}")
            match effect:
                case ef.VerifyModel():
                    self._trust.begin(effect)
                case ef.NoteBreaker():
                    self._trust.note_breaker(effect, self._now)
                case _:
                    pass
            self._watch.note_effect(effect, self._now)
            self._leases.note_effect(effect)
            self._sessions.note_effect(effect)
            self._tenants.note_effect(effect)
        self._trust.check()

    def _answer(self, effect: Answer) -> None:
        is_open = effect.ticket in self._open_tickets
        demand(that=is_open, sentence=f"{effect.ticket} is answered twice, or was never asked")
        self._open_tickets.remove(effect.ticket)
        match effect:
            case ef.AnswerAccepted(job_id=job_id, task_id=task_id):
                demand(that=self._lives[job_id].is_on_disk, sentence=f"{job_id} was acked before it was on disk")
                self._ledger.ack(task_id, job_id)
            case ef.AnswerRefused(refused=refused):
                has_hint = not refused.is_retriable or bool(refused.retry_after_ms)
                demand(that=has_hint, sentence=f"{refused} has no hint when to retry")
            case ef.AnswerCancelled() | ef.AnswerRollout() | ef.AnswerLease():
                pass

    def _write(self, effect: ef.CommitAccept | ef.CommitFinish | ef.Forget) -> None:
        match effect:
            case ef.CommitAccept(task=task):
                demand(that=task.job_id not in self._lives, sentence=f"{task.job_id} is written twice")
                self._lives[task.job_id] = _Life(task)
                self._check_bounds()
            case ef.CommitFinish(task=task, outcome=outcome):
                self._finish(self._lives[task.job_id], task.job_id, outcome)
            case ef.Forget(job_ids=job_ids):
                self._ledger.forget(job_ids)
                for job_id in job_ids:
                    del self._lives[job_id]

    def _finish(self, life: _Life, name: str, outcome: Outcome) -> None:
        demand(that=life.outcome is None and not life.was_over, sentence=f"{name} is finished twice")
        demand(that=life.is_on_disk, sentence=f"{name} is finished before it was accepted")
        demand(that=life.run is None, sentence=f"{name} is finished while run {life.run} is under way")
        is_one = (outcome.error is None) != (outcome.finish_reason is None)
        demand(that=is_one, sentence=f"the end of {name} is both or neither: {outcome}")
        demand(that=outcome.emitted >= life.emitted, sentence=f"{name} emitted {life.emitted}, then {outcome.emitted}")
        life.outcome = outcome

    def _start(self, effect: ef.StartRun) -> None:
        task, life = effect.task, self._lives[effect.task.job_id]
        name = f"run {effect.run_id} of {task.job_id}"
        demand(that=not self._is_halting, sentence=f"{name}: the daemon stops")
        is_waiting = life.is_on_disk and life.run is None and life.outcome is None and not life.was_over
        demand(that=is_waiting, sentence=f"{name}: it does not wait")
        demand(that=not life.is_cancelled, sentence=f"{name}: it was cancelled")
        demand(that=task.is_strict or not life.emitted, sentence=f"{name}: no re-run can repeat what it delivered")
        is_trusted = task.daemons_lost < self._host.daemons_lost_max
        demand(that=is_trusted, sentence=f"{name}: it has lost {task.daemons_lost} daemons")
        demand(that=task.deadline_at_ms > self._now, sentence=f"{name}: past its deadline")
        demand(that=effect.run_id not in self._runs, sentence=f"{name}: the id is taken")
        self._watch.take_slot(effect)
        self._trust.take_slot(effect)
        self._starts[effect.run_id] = effect
        life.starts += 1
        attempts = life.starts - life.turned_away
        demand(that=attempts <= self._host.attempts_max, sentence=f"{name}: attempt {attempts}")
        life.run = effect.run_id
        self._runs[effect.run_id] = (task.job_id, effect.pool_id)

    def _check_bounds(self) -> None:
        """Admitted by this daemon and not yet started: no more than the queues hold."""
        own = [life for life in self._lives.values() if not (life.is_restored or life.was_over)]
        waiting = Counter(life.task.model_ref for life in own if not life.starts and life.outcome is None)
        for model, count in waiting.items():
            room = self._watch.room(model)
            demand(that=count <= room, sentence=f"{count} tasks wait for {model}, {room} may")

    # At the end

    def check_all_answered(self) -> None:
        demand(that=not self._open_tickets, sentence=f"never answered: {sorted(self._open_tickets)}")
