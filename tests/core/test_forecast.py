"""When a newcomer starts: honest, or silent."""

import pytest

from supervisor.core.forecast import SAMPLES_MIN, Forecast


def observed(count: int, ms: float = 640.0) -> Forecast:
    forecast = Forecast()
    for _ in range(count):
        forecast.observe(ms, 64)
    return forecast


@pytest.mark.orch("ORCH-3029")
@pytest.mark.parametrize(
    ("samples", "slots", "expected"), [(SAMPLES_MIN - 1, 1, None), (SAMPLES_MIN, 1, 1_000), (9, 4, 250), (9, 0, None)]
)
def test_the_work_ahead_is_spread_over_the_slots(samples: int, slots: int, expected: int | None) -> None:
    assert observed(samples).start_in_ms(100, slots, has_free_slot=False) == expected


def test_a_free_slot_needs_no_samples() -> None:
    assert Forecast().start_in_ms(100, 1, has_free_slot=True) == 0


def test_it_follows_a_change_of_speed() -> None:
    forecast = observed(5, 640.0)
    for _ in range(30):
        forecast.observe(1_280.0, 64)

    assert forecast.ms_per_token == pytest.approx(20.0, rel=0.01)
