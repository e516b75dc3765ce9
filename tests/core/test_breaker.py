"""The breaker of a replica: its total table, and when it opens, tries and closes."""

import pytest

from supervisor.core.breaker import (
    FORGIVEN_AFTER_MS,
    OPEN_FIRST_MS,
    OPEN_MAX_MS,
    PAUSE_MS,
    RESULTS_MIN,
    STREAK_MAX,
    TABLE,
    WINDOW_MS,
    Breaker,
    Ignored,
    Move,
    Signal,
    Trust,
)

pytestmark = pytest.mark.orch("ORCH-3025")

REACHED_BY = {
    Trust.CLOSED: (),
    Trust.OPEN: (Signal.FAILED,) * STREAK_MAX,
    Trust.HALF_OPEN: (*(Signal.FAILED,) * STREAK_MAX, Signal.DUE),
    Trust.PROBING: (*(Signal.FAILED,) * STREAK_MAX, Signal.DUE, Signal.BEGAN),
}
GOES_TO = {
    (Trust.OPEN, Signal.DUE): Trust.HALF_OPEN,
    (Trust.OPEN, Signal.RENEWED): Trust.CLOSED,
    (Trust.HALF_OPEN, Signal.BEGAN): Trust.PROBING,
    (Trust.HALF_OPEN, Signal.RENEWED): Trust.CLOSED,
    (Trust.PROBING, Signal.PROBE_SUCCEEDED): Trust.CLOSED,
    (Trust.PROBING, Signal.PROBE_FAILED): Trust.OPEN,
    (Trust.PROBING, Signal.PROBE_VOID): Trust.HALF_OPEN,
    (Trust.PROBING, Signal.RENEWED): Trust.CLOSED,
}


def at(trust: Trust) -> Breaker:
    breaker = Breaker()
    for signal in REACHED_BY[trust]:
        breaker.give(signal, 0.0, cause="it broke", run_id=7)
    assert breaker.trust is trust
    return breaker


def fail(breaker: Breaker, times: int, now_ms: float = 0.0) -> None:
    for _ in range(times):
        breaker.give(Signal.FAILED, now_ms, cause="it broke")


def reopen(breaker: Breaker, now_ms: float) -> float:
    """Let the probe fail at `now_ms`; gives how long it is open then."""
    breaker.give(Signal.DUE, now_ms)
    breaker.give(Signal.BEGAN, now_ms, run_id=1)
    breaker.give(Signal.PROBE_FAILED, now_ms, cause="still broken")
    assert breaker.due_ms is not None
    return breaker.due_ms - now_ms


@pytest.mark.parametrize("trust", Trust)
@pytest.mark.parametrize("signal", Signal)
def test_every_pair_goes_where_it_should_and_is_ignored_with_a_reason(trust: Trust, signal: Signal) -> None:
    breaker = at(trust)
    has_changed = breaker.give(signal, 1.0, cause="again", run_id=8)

    cell = TABLE[trust, signal]
    assert breaker.trust is GOES_TO.get((trust, signal), trust)
    assert has_changed == ((trust, signal) in GOES_TO)
    assert not isinstance(cell, Ignored) or len(cell.reason) > 5


def test_every_move_is_in_the_table() -> None:
    assert {cell for cell in TABLE.values() if isinstance(cell, Move)} == set(Move)
    assert set(TABLE) == {(trust, signal) for trust in Trust for signal in Signal}


@pytest.mark.parametrize(("after", "trust"), [(STREAK_MAX - 1, Trust.CLOSED), (STREAK_MAX, Trust.OPEN)])
def test_a_success_in_between_begins_the_count_anew(after: int, trust: Trust) -> None:
    breaker = Breaker()
    fail(breaker, STREAK_MAX - 1)
    breaker.give(Signal.SUCCEEDED, 0.0)
    fail(breaker, after)

    assert breaker.trust is trust


def mixed(failures: int, successes: int, *, over_ms: float = 0.0) -> Breaker:
    """Failures and successes in turn, never five failures in a row, the last one a failure."""
    breaker, results = Breaker(), failures + successes
    order = [index * failures // results != (index + 1) * failures // results for index in range(results)]
    for index, is_failure in enumerate(order):
        now_ms = over_ms * index / max(results - 1, 1)
        breaker.give(Signal.FAILED if is_failure else Signal.SUCCEEDED, now_ms, cause="it broke")
    return breaker


@pytest.mark.parametrize(
    ("failures", "successes", "trust"),
    [(10, 10, Trust.CLOSED), (11, 9, Trust.OPEN), (12, 7, Trust.CLOSED), (15, 9, Trust.OPEN)],
    ids=["half", "more than half", "too few results", "more than half of more"],
)
def test_more_than_half_of_enough_results_open_it(failures: int, successes: int, trust: Trust) -> None:
    assert failures + successes >= RESULTS_MIN - 1

    assert mixed(failures, successes).trust is trust


def test_results_older_than_the_window_do_not_count() -> None:
    assert mixed(11, 9, over_ms=WINDOW_MS * 0.9).trust is Trust.OPEN
    assert mixed(11, 9, over_ms=WINDOW_MS * 2).trust is Trust.CLOSED


def test_the_memory_of_results_is_bounded() -> None:
    breaker = Breaker()
    for now_ms in range(0, 10 * WINDOW_MS, 10):
        breaker.give(Signal.SUCCEEDED, float(now_ms))

    assert len(breaker.buckets) <= WINDOW_MS / 1_000 + 1


def test_each_failed_probe_doubles_the_wait_up_to_its_bound() -> None:
    breaker = at(Trust.OPEN)
    assert breaker.due_ms == OPEN_FIRST_MS
    waits = [reopen(breaker, 1e6 * number) for number in range(1, 6)]

    assert waits == [60_000, 120_000, 240_000, OPEN_MAX_MS, OPEN_MAX_MS]


@pytest.mark.parametrize(("closed_ms", "open_ms"), [(FORGIVEN_AFTER_MS - 1, 60_000), (FORGIVEN_AFTER_MS, 30_000)])
def test_the_doubling_is_forgiven_after_a_while_of_being_closed(closed_ms: float, open_ms: float) -> None:
    breaker = at(Trust.PROBING)
    breaker.give(Signal.PROBE_SUCCEEDED, 1_000.0)
    fail(breaker, STREAK_MAX, 1_000.0 + closed_ms)

    assert breaker.due_ms == 1_000.0 + closed_ms + open_ms


def test_a_new_process_begins_closed_and_keeps_the_doubling() -> None:
    breaker = at(Trust.OPEN)
    breaker.give(Signal.RENEWED, 1_000.0)

    assert (breaker.trust, breaker.cause, breaker.streak) == (Trust.CLOSED, None, 0)
    fail(breaker, STREAK_MAX, 2_000.0)
    assert breaker.due_ms == 2_000.0 + 2 * OPEN_FIRST_MS


def test_a_busy_worker_is_left_alone_and_not_blamed() -> None:
    breaker = Breaker()
    until_ms = breaker.pause(1_000.0)

    assert (breaker.is_taking, breaker.is_ejecting, breaker.streak) == (False, False, 0)
    assert until_ms == 1_500.0


def test_tokens_in_the_middle_of_a_pause_make_the_next_busy_answer_a_first_one() -> None:
    breaker = Breaker()
    breaker.pause(0.0)
    breaker.note_tokens()

    assert breaker.pause(100.0) == 100.0 + PAUSE_MS
