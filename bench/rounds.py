"""Interleaved rounds: each system is measured in every round, in an order drawn from the seed; medians are compared."""

import contextlib
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from statistics import median

from bench.load import Load, LoadPlan
from bench.middles import EngineSpeed, Middle, Place

Opener = Callable[[Place, EngineSpeed], AbstractContextManager[Middle]]


@dataclass(frozen=True, slots=True)
class Series:
    """All rounds of one system."""

    name: str
    loads: tuple[Load, ...]
    ticks_missed: int

    def middle(self, figure: Callable[[Load], float]) -> float:
        """The median of a figure over the rounds."""
        return median(figure(load) for load in self.loads)


def interleave(
    place: Place, openers: Iterable[Opener], speed: EngineSpeed, plan: LoadPlan, rounds: int
) -> Mapping[str, Series]:
    """Open all systems, then run `plan` against each of them in each round. Port, mode and pid are filled in."""
    order = random.Random(plan.seed)
    loads: dict[str, list[Load]] = {}
    with contextlib.ExitStack() as stack:
        middles = [stack.enter_context(opener(place, speed)) for opener in openers]
        missed = {middle.name: middle.engine_ticks_missed() for middle in middles}
        for number in range(rounds):
            order.shuffle(middles)
            for middle in middles:
                one = replace(
                    plan, mode=middle.mode, port=middle.port, watch_pid=middle.pid, seed=plan.seed * 1000 + number
                )
                loads.setdefault(middle.name, []).append(place.run(one))
        missed = {middle.name: middle.engine_ticks_missed() - missed[middle.name] for middle in middles}
    return {name: Series(name, tuple(each), missed[name]) for name, each in loads.items()}
