"""When a newcomer starts: honest, or silent."""

import heapq
import random

import pytest

from supervisor.core import effects as ef
from supervisor.core.forecast import SAMPLES_MIN, Forecast, InService
from tests.core.builders import make_task, only, ready_stage

IDLE = InService()


def observed(count: int, ms: float = 640.0) -> Forecast:
    forecast = Forecast()
    for _ in range(count):
        forecast.observe(ms, 64)
    return forecast


def running(*began_ms: float) -> InService:
    in_service = InService()
    for at_ms in began_ms:
        in_service.begin(64, at_ms)
    return in_service


@pytest.mark.orch("ORCH-3029")
@pytest.mark.parametrize(
    ("samples", "slots", "expected"), [(SAMPLES_MIN - 1, 1, None), (SAMPLES_MIN, 1, 1_000), (9, 0, None)]
)
def test_the_work_ahead_takes_its_time(samples: int, slots: int, expected: int | None) -> None:
    assert observed(samples).start_in_ms(100, slots, IDLE, 0.0) == expected


def test_a_free_slot_needs_no_samples() -> None:
    stage = ready_stage()

    (answer,) = only(stage.submit(make_task("t")), ef.AnswerAccepted)

    assert answer.predicted_start_ms == 0


def test_what_is_left_of_a_running_task_is_work_ahead() -> None:
    assert observed(5).start_in_ms(0, 1, running(1_000.0), 1_140.0) == 500


def test_a_task_that_overruns_is_expected_to_end_at_once() -> None:
    assert observed(5).start_in_ms(64, 1, running(0.0), 5_000.0) == 640


def test_a_run_that_is_over_is_no_work() -> None:
    in_service = running(0.0, 10.0)
    in_service.end(64, 0.0)
    in_service.end(64, 10.0)

    assert in_service == InService()


def test_it_follows_a_change_of_speed() -> None:
    forecast = observed(5, 640.0)
    for _ in range(90):
        forecast.observe(1_280.0, 64)

    assert forecast.ms_per_token == pytest.approx(20.0, rel=0.02)


def test_long_tasks_count_as_long_and_the_first_one_does_not_linger() -> None:
    forecast = Forecast()
    for service_ms, tokens in ((1_000.0, 1), (1_000.0, 100), (1_000.0, 99)):
        forecast.observe(service_ms, tokens)

    assert forecast.ms_per_token == pytest.approx(15.0)


@pytest.mark.orch("ORCH-3029")
@pytest.mark.parametrize("slots", [1, 2, 8, 32])
def test_under_steady_load_the_median_error_is_a_small_share_of_the_wait(slots: int) -> None:
    """An independent model: tasks of very different length go to the slot that is free first."""
    dice = random.Random(slots)
    forecast, in_service, errors = Forecast(), InService(), list[float]()
    free_at, waiting, ends, now = [0.0] * slots, list[tuple[int, float, float]](), list[tuple[float, int, float]](), 0.0
    for _ in range(4_000):
        now += dice.expovariate(slots / 640.0)
        tokens = dice.randint(1, 127)
        start = max(now, free_at[0])
        while ends and ends[0][0] <= now:
            end, done, began = heapq.heappop(ends)
            in_service.end(done, began)
            forecast.observe(end - began, done)
        for tokens_begun, began, _ in (each for each in waiting if each[1] <= now):
            in_service.begin(tokens_begun, began)
        waiting = [each for each in waiting if each[1] > now]
        predicted = forecast.start_in_ms(sum(each[0] for each in waiting), slots, in_service, now)
        if predicted is not None and start - now > 100:
            errors.append(abs(predicted - (start - now)) / (start - now))
        end = start + tokens * 10.0 * dice.uniform(0.8, 1.2)
        heapq.heapreplace(free_at, end)
        heapq.heappush(ends, (end, tokens, start))
        waiting.append((tokens, start, end))

    errors.sort()
    assert len(errors) > 200
    assert errors[len(errors) // 2] < 0.3
