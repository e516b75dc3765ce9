"""Chaos: one conductor, everything that can happen to it in any order, and its invariants after every event.

No life of a daemon is simulated here, nor anything that must make sense as a whole: that is `world`'s. In the end all
that went wrong is over, and then nothing may be left: no task alive, no worker in between, no lease, no rollout.
"""

from random import Random
from typing import get_args

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.conductor import Conductor
from supervisor.core.invariants import violations
from supervisor.core.lifecycle import Phase
from supervisor.core.plan import HostPlan
from supervisor.core.tasks import Ended
from tests.sim.chaos_answers import Answers, Asked
from tests.sim.chaos_wishes import Wishes, draw_plan

STEPS = 500
ANSWER_SHARE, WISH_SHARE = 0.66, 0.26
LULL_MS = 5_000
LULLS = 400
LULLS_PER_LOOK = 10
LULLS_WITH_ROLLOUTS = 30
_ASKED = get_args(Asked)


class ChaosError(AssertionError):
    """A seed found a state that must not be; its last events say how."""


class Chaos:
    """One run. The same seed plays the same events."""

    def __init__(self, seed: int) -> None:
        self._seed, self._dice, self._now = seed, Random(seed), 0.0
        self._answers, self._wishes = Answers(self._dice), Wishes(self._dice)
        self._asked: list[Asked] = []
        self.told: list[tuple[float, ev.Event]] = []
        plans = tuple(draw_plan(self._dice, key) for key in ("p0", "p1", "p2"))
        self._core = Conductor(plans, HostPlan(keep_previous_ms=60_000, session_turns_max=3))
        self._give(self._wishes.inventory())

    def play(self, steps: int = STEPS) -> None:
        for _ in range(steps):
            self._step()
        self._calm_down()
        self._require(*self._left())

    def _require(self, *wrong: str) -> None:
        if wrong:
            last = "\n".join(f"  {round(at_ms):>8} {str(event)[:200]}" for at_ms, event in self.told[-12:])
            raise ChaosError(f"chaos seed {self._seed}, event {len(self.told)}: {'; '.join(wrong)}\n{last}")

    def _give(self, event: ev.Event) -> None:
        self.told.append((self._now, event))
        effects = self._core.handle(event, self._now)
        self._asked += [effect for effect in effects if isinstance(effect, _ASKED)]
        for effect in effects:
            if isinstance(effect, ef.AbortRun):
                self._abort(effect.run_id)
        self._require(*violations(self._core.state, self._now))

    def _abort(self, run_id: int) -> None:
        self._asked = [each for each in self._asked if not (isinstance(each, ef.StartRun) and each.run_id == run_id)]
        self._give(ev.RunAborted(run_id, None, 0, 0, 5.0))

    def _answer(self, at: int) -> None:
        answer = self._answers.to(self._core.state, self._asked.pop(at))
        if answer is not None:
            self._give(answer)

    def _step(self) -> None:
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
        while (due := self._core.next_due_ms()) is not None and due <= until:
            self._now = max(self._now, due)
            self._give(ev.TimePassed())
        self._now = until

    def _calm_down(self) -> None:
        """Nothing goes wrong any more, what operators began is taken back, and time passes."""
        self._answers.is_calm = True
        for lease_id in list(self._core.state.leases):
            self._give(ev.LeaseEnded(lease_id, "given back"))
        for lull in range(LULLS):
            while self._asked:
                self._answer(0)
            if lull % LULLS_PER_LOOK == 0:
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
        }
        return [f"{name} left: {values}" for name, values in left.items() if values]
