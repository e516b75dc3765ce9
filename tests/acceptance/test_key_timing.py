"""Whether the time of a refusal says anything about a key: Welch's t-test over 100,000 refusals of each kind."""

import gc
import math
import secrets
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pytest

from supervisor.config.keys import PREFIX, SECRET_BYTES
from supervisor.runtime.key_ring import KeyRejected, KeyRing
from tests.support.keys import a_key

pytestmark = pytest.mark.accept

SAMPLES = 100_000
T_MAX = 4.5
CROPPED = 0.05
"""Share of the slowest samples that is left out: what the machine did, not the code."""
KEYS = 50


def random_key() -> str:
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def like(key: str | None) -> str:
    """A key that nobody has: equal to this one but for its last six characters, or to none at all.

    Both are made by the same steps, since where a string lies in memory costs more than what is measured.
    """
    start, end = random_key(), random_key()
    return (start if key is None else key)[:-6] + end[-6:]


def t_of(first: Sequence[float], second: Sequence[float]) -> float:
    """Welch's t for the means of two samples, the slowest of both cropped at the same time."""
    cut = sorted((*first, *second))[int((1 - CROPPED) * (len(first) + len(second)))]
    kept = [[sample for sample in samples if sample <= cut] for samples in (first, second)]
    means = [statistics.fmean(each) for each in kept]
    spread = sum(statistics.variance(each, mean) / len(each) for each, mean in zip(kept, means, strict=True))
    return (means[0] - means[1]) / math.sqrt(spread)


def measure(find: Callable[[str], object], kinds: Sequence[Callable[[], str]]) -> list[list[float]]:
    """Nanoseconds of each refusal, the kinds in random order, so that whatever drifts drifts for both.

    All keys are made before, and each in the same way, or the making would be what is measured.
    """
    order = [kind for kind in range(len(kinds)) for _ in range(SAMPLES)]
    Random(1).shuffle(order)
    asked = [(kind, kinds[kind]()) for kind in order]
    taken: list[list[float]] = [[] for _ in kinds]
    gc.collect()
    gc.disable()
    try:
        for kind, secret in asked:
            begun = time.perf_counter_ns()
            find(secret)
            taken[kind].append(time.perf_counter_ns() - begun)
    finally:
        gc.enable()
    return taken


@pytest.mark.orch("ORCH-3035")
def test_a_key_that_is_nearly_right_takes_as_long_as_one_that_is_not(tmp_path: Path) -> None:
    issued = [a_key(tmp_path / "keys.json") for _ in range(KEYS)]
    ring = KeyRing(tmp_path / "keys.json", {})
    ring.take_up()
    valid = issued[KEYS // 2].secret

    nearly, random = measure(ring.find, (lambda: like(valid), lambda: like(None)))
    twice_random = measure(ring.find, (lambda: like(None), lambda: like(None)))

    t, noise = t_of(nearly, random), t_of(*twice_random)
    print(f"t = {t:.2f} (of two equal kinds: {noise:.2f}); median {statistics.median(random):.0f} ns")
    assert isinstance(ring.find(like(valid)), KeyRejected)
    assert abs(t) < T_MAX


def test_the_measure_sees_a_comparison_that_stops_at_the_first_difference() -> None:
    valid = random_key()

    def leaky(secret: str) -> bool:
        return all(mine == theirs for mine, theirs in zip(valid, secret, strict=True))

    nearly, random = measure(leaky, (lambda: like(valid), lambda: like(None)))

    assert t_of(nearly, random) > T_MAX
