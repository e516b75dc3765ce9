"""When a failed request is tried again, and when not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.client.backoff import NEVER, Failure, RetryPolicy, wait_before_retry_s
from supervisor.client.errors import (
    ApiError,
    ClientError,
    NetworkError,
    ProtocolError,
    StreamGapError,
    UnreachableError,
)
from supervisor.client.transport import hint_ms
from supervisor.wire.codes import RETRIABLE, Code
from tests.cli.builders import refusal

POLICY = RetryPolicy(tries_max=5, total_s=30.0, first_s=0.1, longest_s=2.0)
ALMOST_ONE = 0.999_999


def refused(code: Code = Code.ADMISSION_REJECT, after_ms: int | None = 1_500, *, retriable: bool = True) -> ApiError:
    return ApiError(refusal(code, retriable=retriable), 429, after_ms)


def wait(error: ClientError, tries: int = 1, elapsed_s: float = 0.0, chance: float = 0.0) -> float | None:
    return wait_before_retry_s(POLICY, Failure(error, tries, elapsed_s), chance)


@pytest.mark.orch("ORCH-3025")
@pytest.mark.parametrize("code", list(Code))
def test_only_what_is_retriable_is_tried_again(code: Code) -> None:
    is_tried = wait(refused(code, retriable=code in RETRIABLE)) is not None

    assert is_tried is (code not in {Code.INVALID_PARAMS, Code.INTERNAL})


@pytest.mark.orch("ORCH-3025")
def test_a_poison_task_is_never_tried_again() -> None:
    assert wait(refused(Code.WORKER_RESET, retriable=False)) is None


@pytest.mark.parametrize("error", [ProtocolError("x"), StreamGapError("x")])
def test_an_answer_of_no_daemon_is_final(error: ClientError) -> None:
    assert wait(error) is None


@given(st.integers(1, 20_000), st.floats(0, ALMOST_ONE))
@pytest.mark.orch("ORCH-2007")
def test_the_daemons_own_hint_is_kept_and_never_cut_short(hint: int, chance: float) -> None:
    waited_s = wait(refused(after_ms=hint), chance=chance)

    assert waited_s is not None
    assert hint / 1_000 <= waited_s <= hint / 1_000 + min(0.25, hint / 10_000)


def test_a_hint_goes_before_the_doubling() -> None:
    assert wait(refused(after_ms=7_000), tries=4) == 7.0


def test_without_a_hint_waits_double_up_to_the_longest() -> None:
    waits = [wait(NetworkError("x"), tries=tries, chance=ALMOST_ONE) for tries in (1, 2, 3, 4)]

    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8], rel=1e-4)
    assert wait_before_retry_s(RetryPolicy(tries_max=10_000), Failure(NetworkError("x"), 9_000, 0), 0.0) == 2.5


@given(st.integers(1, 4), st.floats(0, ALMOST_ONE))
def test_chance_takes_at_most_half_of_a_wait(tries: int, chance: float) -> None:
    waited_s = wait(NetworkError("x"), tries=tries, chance=chance)

    assert waited_s is not None
    assert 0.05 * 2 ** (tries - 1) <= waited_s <= 0.1 * 2 ** (tries - 1)


def test_the_last_try_is_the_last() -> None:
    assert wait(NetworkError("x"), tries=4) is not None
    assert wait(NetworkError("x"), tries=5) is None
    assert wait_before_retry_s(NEVER, Failure(refused(), 1, 0.0), 0.0) is None


def test_a_wait_past_the_total_is_not_begun() -> None:
    assert wait(refused(after_ms=10_000), elapsed_s=20.0) == 10.0
    assert wait(refused(after_ms=10_001), elapsed_s=20.0) is None


def test_whether_a_daemon_that_is_not_there_is_waited_for_is_the_callers_choice() -> None:
    impatient = RetryPolicy(waits_for_listener=False)

    assert wait(UnreachableError("x")) is not None
    assert wait_before_retry_s(impatient, Failure(UnreachableError("x"), 1, 0.0), 0.0) is None
    assert wait_before_retry_s(impatient, Failure(NetworkError("x"), 1, 0.0), 0.0) is not None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-Backoff-Ms": "1500", "Retry-After": "2"}, 1_500),
        ({"Retry-After": "2"}, 2_000),
        ({"X-Backoff-Ms": "soon", "Retry-After": "3"}, 3_000),
        ({"X-Backoff-Ms": "-5"}, None),
        ({"X-Backoff-Ms": "1" * 12}, None),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({}, None),
    ],
)
@pytest.mark.orch("ORCH-2007")
def test_the_finer_header_goes_first(headers: dict[str, str], expected: int | None) -> None:
    assert hint_ms(headers) == expected
