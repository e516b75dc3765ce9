"""Spans of time, read and written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchctl.durations import DURATION_MS_MAX, duration_ms
from orchctl.exits import ExitCode, VerbError
from orchctl.spans import spoken


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("30s", 30_000),
        ("1m30s", 90_000),
        ("500ms", 500),
        ("2h", 7_200_000),
        ("0", 0),
        ("1.5s", 1_500),
        ("2min", 120_000),
    ],
)
def test_a_time_is_read_with_its_unit(text: str, ms: int) -> None:
    assert duration_ms(text, "--deadline") == ms


@pytest.mark.parametrize("text", ["", "30", "-1s", "s", "1d", "1s ", "25h", "9" * 40 + "s", "\u0661s", "1s\n"])
def test_what_is_no_time_is_a_usage_error_that_names_the_option(text: str) -> None:
    with pytest.raises(VerbError, match="--deadline") as caught:
        duration_ms(text, "--deadline")

    assert caught.value.code is ExitCode.USAGE


@given(st.integers(0, DURATION_MS_MAX))
def test_milliseconds_come_back_as_they_were_written(ms: int) -> None:
    assert duration_ms(f"{ms}ms", "--deadline") == ms


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (12_400, "12 s"),
        (185_000, "3 min 5 s"),
        (11_520_000, "3 h 12 min"),
        (3_600_000, "1 h"),
    ],
)
def test_a_time_is_spoken_with_two_units_at_most(ms: int, words: str) -> None:
    assert spoken(ms) == words


def test_days_are_spoken_of_too() -> None:
    assert spoken(2 * 86_400_000 + 4 * 3_600_000 + 5) == "2 d 4 h"
