"""When a failed worker starts again: delays, the bound on starts, the breaker and its half-open probe."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core import restart
from supervisor.core.restart import Again, BreakerOpen, History


@pytest.mark.parametrize(
    ("streak", "base_s"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (8, 60), (99, 60)]
)
def test_delays_double_up_to_a_minute_within_a_fifth(streak: int, base_s: int) -> None:
    delays = {restart.delay_ms(streak, f"pool-{n}") for n in range(200)}

    assert all(base_s * 800 <= delay <= base_s * 1200 for delay in delays)
    assert max(delays) - min(delays) > base_s * 300, "the jitter spreads"


@given(st.text())
def test_jitter_is_a_function_of_its_seed(seed: str) -> None:
    assert -1 <= restart.jitter(seed) <= 1
    assert restart.jitter(seed) == restart.jitter(seed)


def fail(history: History, now_ms: float) -> tuple[History, Again | BreakerOpen]:
    history = restart.note_failure(history)
    return history, restart.plan_restart(history, now_ms, "p0")


@pytest.mark.orch("ORCH-3053")
def test_the_sixth_start_in_five_minutes_opens_the_breaker() -> None:
    history, now, plans = History(), 0.0, []
    for _ in range(5):
        history = restart.note_start(history, now)
        history, plan = fail(history, now + 10)
        plans.append(plan)
        now = plan.at_ms if isinstance(plan, Again) else now

    assert [type(plan) for plan in plans] == [Again, Again, Again, Again, BreakerOpen]
    assert plans[-1] == BreakerOpen(now + 10 + restart.HALF_OPEN_MS)


def test_a_failure_without_starts_never_opens_the_breaker() -> None:
    history = History()
    for _ in range(50):
        history, plan = fail(history, 0)

        assert isinstance(plan, Again)


@pytest.mark.orch("ORCH-3053")
def test_a_failed_probe_of_the_half_open_breaker_opens_it_again() -> None:
    history = restart.note_open(History(streak=5, starts=(0.0,)))
    history = restart.note_start(history, 600_000)

    history, plan = fail(history, 601_000)

    assert plan == BreakerOpen(601_000 + restart.HALF_OPEN_MS)


def test_being_stable_forgives_the_streak_and_closes_the_breaker() -> None:
    history = restart.note_stable(restart.note_open(History(streak=9, starts=(1.0,))))

    _, plan = fail(history, 400_000)

    assert isinstance(plan, Again)
    assert plan.at_ms - 400_000 <= 1_200


@pytest.mark.orch("ORCH-3053")
def test_being_stable_does_not_forget_the_starts_of_the_window() -> None:
    history = restart.note_stable(History(streak=4, starts=(0.0, 1_000.0, 3_000.0, 7_000.0, 15_000.0)))

    _, plan = fail(history, 140_000)

    assert isinstance(plan, BreakerOpen)


@pytest.mark.orch("ORCH-3053")
@given(st.lists(st.tuples(st.floats(0, 400_000), st.booleans(), st.booleans()), max_size=80))
def test_no_five_minutes_ever_see_more_than_five_starts(lives: list[tuple[float, bool, bool]]) -> None:
    """Each life: how long a worker lived, whether it was taken as stable, whether its device went and came back."""
    history, now, starts = History(), 0.0, list[float]()
    for lived_ms, is_stable, loses_device in lives:
        starts.append(now)
        history = restart.note_start(history, now)
        if is_stable and lived_ms >= restart.STABLE_MS:
            history = restart.note_stable(history)
        now += lived_ms
        plan: Again | BreakerOpen
        if loses_device:
            plan = restart.plan_return(history, now)
        else:
            history, plan = fail(history, now)
        if isinstance(plan, BreakerOpen):
            history = restart.note_open(history)
        now = plan.at_ms if isinstance(plan, Again) else plan.half_open_at_ms

    for first in starts:
        assert sum(first <= at < first + restart.STARTS_WINDOW_MS for at in starts) <= restart.STARTS_MAX
