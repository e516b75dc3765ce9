"""What outlives a daemon in a chaos run: records on disk, what operators asked for, engines that nobody stopped.

Its memory is its own: it looks at events and effects alone. What a daemon held when it ended is read off its last
state, as the configuration and the process table would tell it.
"""

from random import Random

from msgspec import structs

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.intent import Intent
from supervisor.core.lifecycle import Phase
from supervisor.core.operator import current_intent
from supervisor.core.plan import PoolPlan
from supervisor.core.replicas import FoundEngine
from supervisor.core.revisions import RolloutKind, name_key
from supervisor.core.state import State
from supervisor.core.tasks import WAITING, Ended, Outcome, Task
from supervisor.wire.codes import Code
from tests.sim.chaos_wishes import draw_plan

FOUND_SHARE = 0.8
WRITTEN_SHARE = 0.5
CHANGED_SHARE = 0.1
LOG_BYTES = 10
WITH_PROCESS = (Phase.LOADING, Phase.INSPECTING, Phase.TESTING, Phase.READY)


class Remains:
    """Told of every event and its effects. `found` are engines that this daemon has neither adopted nor ended."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice
        self._writing: dict[str, Task] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._ended: dict[str, Task] = {}
        self._intent = Intent()
        self._is_intent_of_this_life = False
        self._is_stopping = self._are_engines_told = False
        self._strange: list[str] = []
        self.records: dict[str, Task] = {}
        self.found: dict[str, FoundEngine] = {}

    def note(self, event: ev.Event, effects: list[ef.Effect]) -> None:
        match event:
            case ev.AcceptsCommitted(job_ids=job_ids):
                self.records |= {job_id: self._writing.pop(job_id) for job_id in job_ids if job_id in self._writing}
            case ev.HaltRequested():
                self._is_stopping = True
            case ev.FinishesCommitted(job_ids=job_ids):
                for job_id in job_ids:
                    self._write_end(job_id)
            case _:
                pass
        for effect in effects:
            self._note_effect(effect)

    def _note_effect(self, effect: ef.Effect) -> None:
        match effect:
            case ef.CommitAccept(task=task):
                self._writing[task.job_id] = structs.replace(task)
            case ef.CommitAttempt(job_id=job_id, attempt=attempt):
                self.records[job_id].attempt = attempt
            case ef.CommitFinish(task=task, outcome=outcome):
                self._outcomes[task.job_id] = outcome
                if self._is_stopping and outcome.error is not None and outcome.error.code is Code.POOL_UNAVAILABLE:
                    self._strange.append(f"{task.job_id} ends though it could wait for the next daemon")
            case ef.CommitIntent(intent=intent):
                self._intent, self._is_intent_of_this_life = intent, True
            case ef.AdoptEngine(pool_id=key) | ef.EndFoundEngine(pool_id=key):
                if self.found.pop(key, None) is None:
                    self._strange.append(f"an engine of {key} is taken up or ended, and there is none")
            case _:
                pass

    def _write_end(self, job_id: str) -> None:
        task = self.records.pop(job_id, None)
        if task is not None:
            self._ended[job_id] = structs.replace(task, phase=Ended(self._outcomes[job_id], 0.0), body=b"")

    def wrong(self, state: State) -> list[str]:
        """What the next daemon would not know of this one."""
        found, self._strange = self._strange, []
        if self._is_intent_of_this_life and current_intent(state) != self._intent:
            found.append(f"on disk is {self._intent}, wanted is {current_intent(state)}")
        return found

    def untaken(self, state: State) -> list[str]:
        """What a daemon did not take up of what was wanted of the one before."""
        now, wanted = current_intent(state), self._intent
        drained = wanted.drained.keys() & state.pools.keys()
        found = [f"{pool_id} was drained" for pool_id in sorted(drained - now.drained.keys())]
        found += [] if now.leases == wanted.leases else [f"lent was {wanted.leases}, lent is {now.leases}"]
        for pool_id, pool in now.pools.items():
            kept = wanted.pools.get(pool_id)
            if kept is not None and kept.next_revision > pool.next_revision:
                found.append(f"{pool_id} would give number {pool.next_revision} twice")
        return found

    # The end of one, the beginning of the next

    def end(self, state: State, *, is_killed: bool) -> None:
        """What was on its way is on disk, or is not; only after a kill engines are left."""
        for job_id in list(self._writing):
            if self._dice.random() < WRITTEN_SHARE:
                self.records[job_id] = self._writing[job_id]
        self._writing.clear()
        ending = [job_id for job_id in self._outcomes if job_id in self.records]
        for job_id in ending:
            if self._dice.random() < WRITTEN_SHARE:
                self._write_end(job_id)
        for task in self.records.values():
            task.daemons_lost += is_killed and task.attempt > 0
        if self._are_engines_told and self.found and not is_killed:
            self._strange.append(f"engines outlive the halt: {sorted(self.found)}")
        self._outcomes.clear()
        self._is_intent_of_this_life = self._is_stopping = self._are_engines_told = False
        alive = [each for each in state.replicas.values() if each.phase in WITH_PROCESS and is_killed]
        left = {each.pool_id: FoundEngine(each.pool_id, each.pid or 0, each.port or 0, each.devices) for each in alive}
        known = self.found if is_killed else {}
        self.found = {key: each for key, each in (known | left).items() if self._dice.random() < FOUND_SHARE}

    def plans(self, state: State) -> tuple[PoolPlan, ...]:
        """Each pool begins with the revision that served; now and then its configuration was changed meanwhile."""
        plans = []
        for pool_id, pool in state.pools.items():
            kept = self._intent.pools.get(pool_id)
            if kept is not None and self._dice.random() < CHANGED_SHARE:
                plans.append(draw_plan(self._dice, name_key(pool_id, kept.next_revision)))
            else:
                plans.append(state.replicas[pool.current].plan)
        return tuple(plans)

    def canaries(self, before: State, now: State) -> list[ev.Event]:
        """The canaries that took their share are begun again, as new revisions."""
        asked: list[ev.Event] = []
        for pool_id, wish in self._intent.pools.items():
            if wish.canary is None or pool_id not in now.pools:
                continue
            plan = before.replicas[name_key(pool_id, wish.canary.revision.number)].plan
            key = name_key(pool_id, now.pools[pool_id].next_revision)
            asked.append(
                ev.RolloutRequested(
                    ticket="t",
                    pool_id=pool_id,
                    plan=structs.replace(plan, pool_id=key),
                    kind=RolloutKind.CANARY,
                    drain_ms=2e4,
                    canary=wish.canary.plan,
                )
            )
        return asked

    def intent(self) -> ev.IntentRestored:
        return ev.IntentRestored(self._intent, 0.0)

    def tasks(self) -> ev.TasksRestored:
        """Unfinished tasks as they were written, and those that ended."""
        unfinished = tuple(structs.replace(task, phase=WAITING, set_id="") for task in self.records.values())
        silent = tuple(job_id for job_id in self.records if self._dice.random() < WRITTEN_SHARE)
        finished = tuple((structs.replace(task), LOG_BYTES) for task in self._ended.values())
        return ev.TasksRestored(unfinished, finished, silent)

    def engines(self) -> ev.EnginesFound:
        self._are_engines_told = True
        return ev.EnginesFound(tuple(self.found.values()))
