"""Chaos: one conductor, everything that can happen to it in any order, and its invariants after every event.

Nothing here must make sense as a whole: that is `world`'s. A mortal one is killed or told to stop now and then, and the
next one takes up what `chaos_lives` kept. In the end all that went wrong is over, and then nothing may be left: no task
alive, no worker in between, no lease, no rollout, no engine that nobody owns.
"""

from random import Random
from typing import get_args

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.conductor import Conductor
from supervisor.core.invariants import violations
from supervisor.core.lifecycle import Phase
from supervisor.core.plan import HostPlan, PoolPlan
from supervisor.core.tasks import Ended
from tests.sim.chaos_answers import Answers, Asked
from tests.sim.chaos_lives import Remains
from tests.sim.chaos_wishes import Wishes, draw_plan

STEPS = 500
ANSWER_SHARE, WISH_SHARE = 0.66, 0.26
LULL_MS = 5_000
LULLS = 400
LULLS_PER_LOOK = 10
LULLS_WITH_ROLLOUTS = 30
KILL_SHARE = 0.006
NO_DRIVER_SHARE = 0.1
EARLY_WISHES_MAX = 3
HOST = HostPlan(keep_previous_ms=60_000, session_turns_max=3)
_ASKED = get_args(Asked)


class ChaosError(AssertionError):
    """A seed found a state that must not be; its last events say how."""


class Chaos:
    """One run. The same seed plays the same events. `is_mortal`: daemons end, and others begin."""

    def __init__(self, seed: int, *, is_mortal: bool = False) -> None:
        self._seed, self._dice, self._now = seed, Random(seed), 0.0
        self._fate, self._is_mortal = Random(seed ^ 0xDEAD), is_mortal
        self._answers, self._wishes = Answers(self._dice), Wishes(self._dice, is_mortal=is_mortal)
        self._remains = Remains(self._fate)
        self._asked: list[Asked] = []
        self.told: list[tuple[float, ev.Event]] = []
        self.lives, self._is_over = 0, False
        self._begin(tuple(draw_plan(self._dice, key) for key in ("p0", "p1", "p2")))
        self._give(self._wishes.inventory())

    def play(self, steps: int = STEPS) -> None:
        for _ in range(steps):
            self._step()
            if self._is_mortal and self._fate.random() < KILL_SHARE:
                self._live_again(is_killed=True)
        self._calm_down()
        self._require(*self._left())

    def _require(self, *wrong: str) -> None:
        if wrong:
            last = "\n".join(f"  {round(at_ms):>8} {str(event)[:200]}" for at_ms, event in self.told[-12:])
            raise ChaosError(f"chaos seed {self._seed}, event {len(self.told)}: {'; '.join(wrong)}\n{last}")

    def _give(self, event: ev.Event) -> None:
        self.told.append((self._now, event))
        effects = self._core.handle(event, self._now)
        self._remains.note(event, effects)
        self._is_over = self._is_over or any(isinstance(effect, ef.CompleteHalt) for effect in effects)
        self._asked += [effect for effect in effects if isinstance(effect, _ASKED)]
        for effect in effects:
            if isinstance(effect, ef.AbortRun):
                self._abort(effect.run_id)
        self._require(*violations(self._core.state, self._now), *self._remains.wrong(self._core.state))

    # Lives

    def _begin(self, plans: tuple[PoolPlan, ...]) -> None:
        self._core, self._is_over, self.lives = Conductor(plans, HOST), False, self.lives + 1

    def _live_again(self, *, is_killed: bool) -> None:
        """As the daemon begins: what was wanted, the canaries, the tasks; later the engines, and then the devices."""
        before = self._core.state
        self._asked.clear()
        self._remains.end(before, is_killed=is_killed)
        self._begin(self._remains.plans(before))
        self._give(ev.NeedsRestored(tuple(before.needs.entries.values())))
        self._give(self._remains.intent())
        self._require(*self._remains.untaken(self._core.state))
        for asked in self._remains.canaries(before, self._core.state):
            self._give(asked)
        self._give(self._remains.tasks())
        for _ in range(self._fate.randrange(EARLY_WISHES_MAX + 1)):
            wish = self._wishes.draw(self._core.state, self._now)
            if not (self._answers.is_calm or self._is_over or wish is None or isinstance(wish, ev.DevicesSeen)):
                self._give(wish)
        if self._is_over:
            return
        self._give(self._remains.engines())
        if self._fate.random() < NO_DRIVER_SHARE:
            self._give(ev.DevicesUnknown("the driver does not answer"))
        self._give(self._wishes.inventory())

    # What happens

    def _abort(self, run_id: int) -> None:
        self._asked = [each for each in self._asked if not (isinstance(each, ef.StartRun) and each.run_id == run_id)]
        self._give(ev.RunAborted(run_id, None, 0, 0, 5.0))

    def _answer(self, at: int) -> None:
        answer = self._answers.to(self._core.state, self._asked.pop(at))
        if answer is not None:
            self._give(answer)

    def _step(self) -> None:
        if self._is_over:
            self._live_again(is_killed=False)
        drawn = self._dice.random()
        if drawn < ANSWER_SHARE and self._asked:
            self._answer(self._dice.randrange(len(self._asked)))
        elif drawn < ANSWER_SHARE + WISH_SHARE:
            wish = self._wishes.draw(self._core.state, self._now)
            if wish is not None:
                self._give(wish)
        else:
            self._pass_ms(self._dice.choice([10, 200, 1_000, 1_000, LULL_MS]))

    def _pass_ms(self, ms: float) -> None:
        until = self._now + ms
        while not self._is_over and (due := self._core.next_due_ms()) is not None and due <= until:
            self._now = max(self._now, due)
            self._give(ev.TimePassed())
        self._now = until

    def _calm_down(self) -> None:
        """Nothing goes wrong any more, what operators began is taken back, and time passes."""
        self._answers.is_calm = True
        for lull in range(LULLS):
            while self._asked and not self._is_over:
                self._answer(0)
            if self._is_over:
                self._live_again(is_killed=False)
            if lull % LULLS_PER_LOOK == 0:
                for lease_id in list(self._core.state.leases):
                    self._give(ev.LeaseEnded(lease_id, "given back"))
                self._give(self._wishes.heal(is_away=lull == 0))
                for pool_id in list(self._core.state.pools):
                    self._give(ev.ResumeRequested(pool_id))
            if lull == LULLS_WITH_ROLLOUTS:
                for pool_id in sorted(self._core.state.rolling):
                    self._give(ev.RolloutAborted("t", pool_id, "it is over"))
            self._pass_ms(LULL_MS)

    def _left(self) -> list[str]:
        """What is left although nothing is under way."""
        state = self._core.state
        alive = [task.job_id for task in state.tasks.values() if not isinstance(task.phase, Ended)]
        between = [
            f"{key} {each.phase} {each.cause}, load {each.load}, leased to {each.leased_to}"
            for key, each in state.replicas.items()
            if each.phase is not Phase.READY or each.load or each.leased_to
        ]
        left = {
            "tasks": alive,
            "workers": between,
            "leases": list(state.leases),
            "rollouts": sorted(state.rolling),
            "aside": sorted(state.aside),
            "counting": list(state.counting),
            "records": list(self._remains.records),
            "engines": list(self._remains.found),
        }
        return [f"{name} left: {values}" for name, values in left.items() if values]
