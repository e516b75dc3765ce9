"""Replicas whose runs keep failing: ejected, tried with one run, and trusted again. Others serve meanwhile."""

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.breaker import BUSY_IN_ROW_MAX, OPEN_FIRST_MS, PAUSE_MAX_MS, PAUSE_MS, STREAK_MAX, Trust
from supervisor.core.invariants import violations
from supervisor.wire.codes import Code, FinishReason, Reason
from tests.core.builders import Stage, error_of, make_plan, make_task, only, ready_stage, started

pytestmark = pytest.mark.orch("ORCH-3025")


def fail(stage: Stage, name: str, reason: str = "engine", **flags: bool) -> list[ef.Effect]:
    effects = stage.give(ev.RunFailed(stage.run_of(name), reason, "it broke", 0, **flags))
    for asked in only(effects, ef.ConfirmSlotIdle):
        effects += stage.give(ev.SlotsSeenIdle(asked.pool_id, asked.incarnation, (asked.run_id,)))
    assert violations(stage.core.state, stage.now) == []
    return effects


def trust(stage: Stage, pool_id: str = "p0") -> Trust:
    return stage.replica(pool_id).breaker.trust


def submit(stage: Stage, *names: str) -> None:
    stage.submit(*(make_task(name, strict=False, admitted_ms=stage.now) for name in names))


def ejected(*, slots: int = 1) -> Stage:
    """One pool whose last five runs failed; one more task waits."""
    stage = ready_stage(make_plan(slots=slots))
    for number in range(STREAK_MAX):
        submit(stage, f"f{number}", *(["waits"] if number == STREAK_MAX - 1 and slots == 1 else []))
        fail(stage, f"f{number}")
    stage.settle()
    assert trust(stage) is Trust.OPEN
    return stage


def test_a_replica_whose_runs_keep_failing_takes_no_task_and_newcomers_are_told_when_to_try() -> None:
    stage = ejected()
    stage.pass_ms(4_000)
    refused = stage.refusal(make_task("new"))

    assert (refused.code, refused.reason) == (Code.REPLICA_EXHAUSTED, Reason.EJECTED)
    assert (refused.is_retriable, refused.retry_after_ms) == (True, OPEN_FIRST_MS - 4_000)
    assert stage.core.state.runs == {}
    assert stage.task("waits").queue_time_ms == 0


def test_each_change_of_trust_is_told_with_its_cause() -> None:
    stage = ejected()
    (noted,) = only(stage.done, ef.NoteBreaker)

    assert (noted.pool_id, noted.trust, noted.cause, noted.retry_in_ms) == ("p0", "open", "it broke", OPEN_FIRST_MS)


def test_a_retry_at_the_hint_is_let_in_behind_the_one_that_waited_and_only_one_probes() -> None:
    stage = ejected(slots=4)
    effects = stage.pass_ms(stage.refusal(make_task("new")).retry_after_ms or 0)
    submit(stage, "a", "b")

    assert started(effects) == []
    assert list(stage.core.state.runs.values()) == ["a"]
    assert (trust(stage), stage.replica().breaker.probe) == (Trust.PROBING, stage.run_of("a"))


def test_what_waits_keeps_waiting_and_is_the_probe_when_its_time_comes() -> None:
    stage = ejected()

    assert started(stage.pass_ms(OPEN_FIRST_MS)) == [("waits", "p0")]


def test_a_probe_that_succeeds_brings_the_replica_back() -> None:
    stage = ejected(slots=4)
    stage.pass_ms(OPEN_FIRST_MS)
    submit(stage, "a", "b", "c")
    effects = stage.finish("a")

    assert trust(stage) is Trust.CLOSED
    assert started(effects) == [("b", "p0"), ("c", "p0")]


def test_a_probe_that_fails_ejects_it_for_twice_as_long() -> None:
    stage = ejected()
    stage.pass_ms(OPEN_FIRST_MS)
    fail(stage, "waits")

    assert stage.refusal(make_task("new")).retry_after_ms == 2 * OPEN_FIRST_MS


def test_a_probe_that_is_cancelled_says_nothing_and_another_one_begins() -> None:
    stage = ejected(slots=4)
    stage.pass_ms(OPEN_FIRST_MS)
    submit(stage, "a", "b")
    effects = stage.answer_aborts(stage.give(ev.CancelRequested("c", "a")))

    assert started(effects) == [("b", "p0")]
    assert stage.replica().breaker.probe == stage.run_of("b")


def test_a_run_of_before_decides_nothing_while_the_probe_is_under_way() -> None:
    stage = ready_stage(make_plan(slots=2 * STREAK_MAX))
    submit(stage, "old", *(f"f{number}" for number in range(STREAK_MAX)))
    for number in range(STREAK_MAX):
        fail(stage, f"f{number}")
    stage.pass_ms(OPEN_FIRST_MS)
    submit(stage, "probe")
    stage.finish("old")

    assert trust(stage) is Trust.PROBING


def test_a_sibling_serves_while_one_is_ejected() -> None:
    stage = ready_stage(make_plan("p0"), make_plan("p1", devices=(1,)))
    for number in range(STREAK_MAX):
        submit(stage, f"f{number}")
        fail(stage, f"f{number}")
    submit(stage, "a", "b")

    assert trust(stage) is Trust.OPEN
    assert started(stage.done)[-1] == ("a", "p1")
    assert stage.home().slots_serving == 1
    assert list(stage.core.state.runs.values()) == ["a"]


@pytest.mark.parametrize(
    "flags",
    [{"is_client_fault": True}, {"reason": "determinism"}],
    ids=["the caller's fault", "a re-run that differs"],
)
def test_what_is_not_the_workers_fault_never_counts(flags: dict[str, bool | str]) -> None:
    stage = ready_stage()
    for number in range(3 * STREAK_MAX):
        submit(stage, f"f{number}")
        fail(stage, f"f{number}", **flags)  # type: ignore[arg-type]  # one of them is the word, the other a flag

    assert (trust(stage), stage.replica().breaker.streak) == (Trust.CLOSED, 0)


def test_cancels_never_count() -> None:
    stage = ready_stage()
    for number in range(3 * STREAK_MAX):
        submit(stage, f"c{number}")
        for asked in only(
            stage.answer_aborts(stage.give(ev.CancelRequested(f"k{number}", f"c{number}"))), ef.ConfirmSlotIdle
        ):
            stage.give(ev.SlotsSeenIdle(asked.pool_id, asked.incarnation, (asked.run_id,)))

    assert (trust(stage), stage.replica().breaker.streak) == (Trust.CLOSED, 0)


def test_a_run_that_breaks_while_it_is_cancelled_never_counts() -> None:
    stage = ready_stage()
    for number in range(3 * STREAK_MAX):
        submit(stage, f"c{number}")
        stage.give(ev.CancelRequested(f"k{number}", f"c{number}"))
        fail(stage, f"c{number}")

    assert (trust(stage), stage.replica().breaker.streak) == (Trust.CLOSED, 0)


def stall(stage: Stage, name: str, *, tokens: int = 0) -> None:
    effects = stage.answer_aborts(stage.give(ev.RunStalled(stage.run_of(name), "idle")), emitted=tokens)
    for asked in only(effects, ef.ConfirmSlotIdle):
        stage.give(ev.SlotsSeenIdle(asked.pool_id, asked.incarnation, (asked.run_id,)))


def test_stalls_count() -> None:
    stage = ready_stage()
    for number in range(STREAK_MAX):
        submit(stage, f"s{number}")
        stall(stage, f"s{number}", tokens=1)

    assert (trust(stage), stage.replica().breaker.cause) == (Trust.OPEN, "The engine stopped giving tokens.")


@pytest.mark.parametrize(("tokens", "streak"), [(0, 1), (9, 0)], ids=["without a token", "a long answer"])
def test_a_wall_counts_only_where_no_token_came(tokens: int, streak: int) -> None:
    stage = ready_stage(make_plan(wall_ms=1_000))
    submit(stage, "a")
    stage.answer_aborts(stage.pass_ms(1_000), emitted=tokens)

    assert error_of(stage.outcome("a")).reason is Reason.WALL
    assert stage.replica().breaker.streak == streak


def test_connections_that_are_lost_together_are_one_failure() -> None:
    stage = ready_stage(make_plan(slots=8))
    submit(stage, *(f"t{number}" for number in range(8)))
    for number in range(8):
        stage.give(ev.RunFailed(stage.run_of(f"t{number}"), "engine", "lost", 0, is_worker_lost=True))

    assert (trust(stage), stage.replica().breaker.streak) == (Trust.CLOSED, 1)


def test_a_new_process_begins_closed() -> None:
    stage = ejected()
    stage.lose()
    stage.pass_ms(2_000)
    stage.serve()

    assert trust(stage) is Trust.CLOSED
    assert started(stage.done)[-1] == ("waits", "p0")


def test_resume_tries_an_ejected_replica_at_once() -> None:
    stage = ejected()

    assert started(stage.give(ev.ResumeRequested("p0"))) == [("waits", "p0")]


# Back-pressure --------------------------------------------------------------------------------------------------------


def test_a_task_that_a_busy_engine_refuses_waits_again_at_the_head_and_the_engine_is_left_alone() -> None:
    stage = ready_stage(make_plan())
    submit(stage, "a", "b")
    effects = fail(stage, "a", is_busy=True)

    assert started(effects) == []
    assert started(stage.pass_ms(PAUSE_MS - 1)) == []
    assert started(stage.pass_ms(1)) == [("a", "p0")]
    assert (trust(stage), stage.replica().breaker.streak) == (Trust.CLOSED, 0)


def test_a_busy_engine_poisons_no_task_however_often_it_refuses() -> None:
    stage = ready_stage(make_plan())
    submit(stage, "a")
    for _ in range(BUSY_IN_ROW_MAX):
        fail(stage, "a", is_busy=True)
        stage.pass_ms(PAUSE_MAX_MS)
    stage.finish("a")

    assert stage.outcome("a").finish_reason is FinishReason.STOP


def test_refusals_of_a_busy_engine_are_no_attempts_when_a_worker_is_lost_afterwards() -> None:
    stage = ready_stage(make_plan())
    submit(stage, "a")
    for _ in range(3):
        fail(stage, "a", is_busy=True)
        stage.pass_ms(PAUSE_MAX_MS)

    assert started(fail(stage, "a", is_worker_lost=True)) == [("a", "p0")]


def test_a_task_that_a_busy_engine_never_takes_ends_at_its_deadline() -> None:
    stage = ready_stage(make_plan())
    stage.submit(make_task("a", strict=False, deadline_at_ms=3_200))
    for pause_ms in (PAUSE_MS, 2 * PAUSE_MS, 4 * PAUSE_MS):
        fail(stage, "a", is_busy=True)
        stage.pass_ms(pause_ms)

    assert stage.now == 3_500
    assert (error_of(stage.outcome("a")).code, error_of(stage.outcome("a")).reason) == (
        Code.DECODE_TIMEOUT,
        Reason.DEADLINE,
    )


def turn_away(stage: Stage, times: int) -> None:
    """The one run of the worker is refused so often, each time as soon as it is tried again."""
    for _ in range(times):
        (name,) = stage.core.state.runs.values()
        fail(stage, name, is_busy=True)
        stage.pass_ms(PAUSE_MAX_MS)


def test_an_engine_that_stays_busy_is_left_alone_for_longer_and_longer_until_it_works() -> None:
    stage = ready_stage(make_plan())
    submit(stage, "a", "b")
    pauses = []
    for _ in range(6):
        fail(stage, "a", is_busy=True)
        pauses.append(stage.replica().breaker.paused_until_ms - stage.now)
        stage.pass_ms(PAUSE_MAX_MS)
    stage.finish("a")
    fail(stage, "b", is_busy=True)

    assert pauses == [500, 1_000, 2_000, 4_000, 8_000, 8_000]
    assert stage.replica().breaker.paused_until_ms - stage.now == PAUSE_MS


def test_answers_that_come_in_one_pause_count_once() -> None:
    stage = ready_stage(make_plan(slots=4))
    submit(stage, "a", "b", "c", "d")
    for name in "abcd":
        fail(stage, name, is_busy=True)

    assert stage.replica().breaker.paused_until_ms - stage.now == PAUSE_MS


def test_an_engine_that_is_busy_for_ever_is_ejected_and_the_task_keeps_its_place() -> None:
    stage = ready_stage(make_plan())
    submit(stage, "a", "b")
    turn_away(stage, BUSY_IN_ROW_MAX + STREAK_MAX - 2)
    before = trust(stage)

    fail(stage, "a", is_busy=True)

    assert (before, trust(stage)) == (Trust.CLOSED, Trust.OPEN)
    assert started(stage.pass_ms(OPEN_FIRST_MS)) == [("a", "p0")]
    fail(stage, "a", is_busy=True)
    assert trust(stage) is Trust.OPEN
    assert stage.replica().breaker.openings == 2


def test_a_sibling_takes_over_from_an_engine_that_is_busy() -> None:
    stage = ready_stage(make_plan("p0"), make_plan("p1", devices=(1,)))
    submit(stage, "a")

    assert started(fail(stage, "a", is_busy=True)) == [("a", "p1")]


def test_an_engine_that_is_busy_with_another_run_is_never_blamed() -> None:
    stage = ready_stage(make_plan(slots=2, wall_ms=10_000_000))
    submit(stage, "long", "a")
    for _ in range(2 * BUSY_IN_ROW_MAX):
        fail(stage, "a", is_busy=True)
        stage.pass_ms(PAUSE_MAX_MS)

    assert (trust(stage), stage.replica().breaker.streak) == (Trust.CLOSED, 0)


def test_a_token_between_makes_the_next_refusal_a_first_one() -> None:
    stage = ready_stage(make_plan())
    stage.submit(make_task("a"))
    turn_away(stage, BUSY_IN_ROW_MAX - 1)
    stage.give(ev.RunFailed(stage.run_of("a"), "engine", "lost", 3, is_worker_lost=True))
    stage.give(ev.SlotsSeenIdle("p0", stage.replica().incarnation, tuple(stage.replica().freeing)))
    fail(stage, "a", is_busy=True)

    assert stage.replica().breaker.paused_until_ms - stage.now == PAUSE_MS
