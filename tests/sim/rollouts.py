"""Revisions that come and go in a simulated world: reloads, canaries, rollbacks, other bounds; kept over restarts."""

from random import Random

from msgspec import structs

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.intent import Intent
from supervisor.core.plan import PoolPlan
from supervisor.core.revisions import CanaryPlan, JudgePlan, RolloutKind, name_key
from tests.sim.fleet import Fleet
from tests.sim.world import World


class Rollouts:
    """Draws with its own dice, so that a seed's other misfortunes stay what they were."""

    def __init__(self, world: World, fleet: Fleet, seed: int) -> None:
        self._world, self._fleet = world, fleet
        self._dice = Random(seed ^ 0x2011)
        self._base = {plan.public_id: plan for plan in world.plans}
        self._built: dict[str, PoolPlan] = {plan.pool_id: plan for plan in world.plans}
        self._intent = Intent()
        self._tickets = 0
        world.hands[ef.CommitIntent] = self._keep

    def plan(self, within_ms: float, count: int) -> None:
        acts = {
            self._begin: 6,
            self._promote: 2,
            self._abort: 1,
            self._roll_back: 2,
            self._share: 1,
            self._measure_parity: 1,
            self._tune: 1,
        }
        for act in self._dice.choices(list(acts), list(acts.values()), k=count):
            self._world.fated(self._dice.uniform(0, within_ms), act)

    # Restarts

    def _keep(self, effect: ef.CommitIntent) -> None:
        self._intent = effect.intent

    def choose_plans(self) -> None:
        """The next daemon begins with the revisions that served."""
        wishes = self._intent.pools
        numbers = {name: wishes[name].current.number if name in wishes else 1 for name in self._base}
        self._world.plans = tuple(self._built[name_key(name, number)] for name, number in numbers.items())

    def restore(self) -> None:
        """What operators wanted is taken up, and a canary begun again."""
        self._world.post(ev.IntentRestored(self._intent, 0.0))
        for name, wish in self._intent.pools.items():
            if wish.canary is not None:
                self._request(name, RolloutKind.CANARY, wish.canary.plan)

    # Operators

    def _ticket(self) -> str:
        self._tickets += 1
        return f"rollout-{self._tickets}"

    def _pool(self) -> str:
        return self._dice.choice(sorted(self._base))

    def _begin(self) -> None:
        kind = self._dice.choice(list(RolloutKind))
        judge = self._dice.choice((None, JudgePlan(min_tasks=2, promote_after_tasks=6), JudgePlan(parity_min=0.5)))
        canary = CanaryPlan(share_buckets=self._dice.choice((0, 3_000, 10_000)), judge=judge)
        self._request(self._pool(), kind, canary if kind is RolloutKind.CANARY else None)

    def _request(self, name: str, kind: RolloutKind, canary: CanaryPlan | None) -> None:
        if not self._world.is_up:
            return
        key = name_key(name, self._world.core.state.pools[name].next_revision)
        base = self._base[name]
        digest = self._dice.choice((base.model_digest, f"sha256:{base.model_ref}-{self._dice.randrange(3)}"))
        plan = self._built[key] = structs.replace(base, pool_id=key, model_digest=digest)
        self._fleet.learn(plan)
        drain_ms = self._dice.choice((0.0, 2_000.0, 20_000.0))
        self._world.post(
            ev.RolloutRequested(
                ticket=self._ticket(), pool_id=name, plan=plan, kind=kind, drain_ms=drain_ms, canary=canary
            )
        )

    def _promote(self) -> None:
        self._world.post(ev.RolloutPromoted(self._ticket(), self._pool()))

    def _abort(self) -> None:
        self._world.post(ev.RolloutAborted(self._ticket(), self._pool(), "enough seen"))

    def _roll_back(self) -> None:
        self._world.post(ev.RollbackRequested(self._ticket(), self._pool()))

    def _share(self) -> None:
        self._world.post(ev.CanaryShared(self._ticket(), self._pool(), self._dice.choice((0, 5_000, 10_000))))

    def _measure_parity(self) -> None:
        name = self._pool()
        if self._world.is_up and (rollout := self._world.core.state.pools[name].rollout) is not None:
            number = int(rollout.key.partition("+")[2])
            self._world.post(ev.ParityMeasured(name, number, self._dice.randrange(11), 10))

    def _tune(self) -> None:
        """Other bounds of time: what the oracle holds of room stays as it is."""
        if self._world.is_up:
            name = self._pool()
            key = self._world.core.state.pools[name].current
            plan = structs.replace(self._built[key], first_token_ms=self._dice.choice((None, 20_000)))
            self._world.post(ev.PoolsChanged(ticket=self._ticket(), generation=self._tickets, tuned=(plan,)))

    # The calm

    def calm(self) -> None:
        """Operators undo what is under way."""
        for name in sorted(self._base):
            self._abort_of(name)

    def _abort_of(self, name: str) -> None:
        self._world.post(ev.RolloutAborted(self._ticket(), name, "the storm is over"))
