"""A worker from its first step to its last: steps, failures, restarts, and what becomes of the tasks it loses."""

import itertools

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.invariants import violations
from supervisor.core.lifecycle import Phase
from supervisor.core.restart import HALF_OPEN_MS, STABLE_MS
from supervisor.core.tasks import Running, Waiting
from supervisor.wire.codes import Code, Reason
from tests.core.builders import (
    BOTH,
    CTX,
    DIGEST,
    VERSION,
    Stage,
    error_of,
    make_plan,
    make_stage,
    make_task,
    only,
    ready_stage,
    started,
)

ROOMY = ev.RoomMeasured("p0", 1, (ev.DeviceRoom("GPU-0", 81_920, 80_000, 8_000),), 64_000, 0)


@pytest.mark.orch("ORCH-3002", "ORCH-3037", "ORCH-3049")
def test_each_step_to_ready_follows_from_the_one_before() -> None:
    stage = make_stage()
    events: list[ev.Event] = [
        BOTH,
        ev.ModelVerified("p0", 1, DIGEST),
        ROOMY,
        ev.EngineSpawned("p0", 1, 100, 9000),
        ev.EngineHealthy("p0", 1),
        ev.EngineInspected("p0", 1, VERSION, 1, CTX),
        ev.EngineTested("p0", 1),
    ]

    steps = [stage.give(event) for event in events]

    asked = [[effect for effect in effects if not isinstance(effect, ef.NoteWorker)] for effects in steps]
    assert asked == [
        [ef.VerifyModel("p0", 1)],
        [ef.MeasureRoom("p0", 1, ("GPU-0",))],
        [ef.SpawnEngine("p0", 1, ("GPU-0",))],
        [ef.AwaitHealth("p0", 1)],
        [ef.InspectEngine("p0", 1)],
        [ef.RunSelfTest("p0", 1)],
        [],
    ]
    assert stage.replica().phase is Phase.READY


@pytest.mark.orch("ORCH-3049")
def test_the_steps_are_kept_for_the_status() -> None:
    stage = make_stage()
    stage.give(BOTH)
    inc = stage.load()
    stage.give(ev.EngineHealthy("p0", inc))
    stage.give(ev.EngineInspected("p0", inc, VERSION, 1, CTX))
    stage.give(ev.StepPassed("p0", inc, "minimal decode", 12.0, "4 tokens"))

    assert [(step.name, step.state) for step in stage.replica().steps] == [
        ("model digest", "passed"),
        ("memory headroom", "passed"),
        ("process up", "passed"),
        ("engine health", "passed"),
        ("engine properties", "passed"),
        ("minimal decode", "passed"),
    ]


@pytest.mark.orch("ORCH-3037", "ORCH-3042")
def test_a_wrong_digest_spawns_nothing() -> None:
    stage = make_stage()
    stage.give(BOTH)

    stage.give(ev.StepFailed("p0", 1, "the digest differs"))

    assert stage.replica().phase is Phase.BACKOFF
    assert stage.replica().cause == "the digest differs"
    assert only(stage.done, ef.SpawnEngine) == []


@pytest.mark.orch("ORCH-3019")
@pytest.mark.parametrize(("slots", "ctx"), [(3, CTX), (4, CTX - 1)])
def test_an_engine_that_offers_less_than_configured_is_stopped(slots: int, ctx: int) -> None:
    stage = make_stage(make_plan(slots=4))
    stage.give(BOTH)
    inc = stage.load()
    stage.give(ev.EngineHealthy("p0", inc))

    effects = stage.give(ev.EngineInspected("p0", inc, VERSION, slots, ctx))

    assert only(effects, ef.StopEngine) == [ef.StopEngine("p0", inc)]
    assert "configured" in (stage.replica().cause or "")


@pytest.mark.parametrize(("steps", "bound_ms"), [(0, 60_000), (1, 30_000), (2, 120_000)])
def test_a_step_that_takes_too_long_stops_the_worker(steps: int, bound_ms: int) -> None:
    stage = make_stage()
    stage.give(BOTH)
    inc = stage.load()
    for event in (ev.EngineHealthy("p0", inc), ev.EngineInspected("p0", inc, VERSION, 1, CTX))[:steps]:
        stage.give(event)
    before = stage.pass_ms(bound_ms - 1)

    effects = stage.pass_ms(1)

    assert only(before, ef.StopEngine) == []
    assert only(effects, ef.StopEngine) == [ef.StopEngine("p0", inc)]


def test_a_deadline_of_a_phase_that_is_over_does_nothing() -> None:
    stage = ready_stage(make_plan(load_timeout_ms=1_000))
    stage.pass_ms(200_000)

    assert stage.replica().phase is Phase.READY


@pytest.mark.orch("ORCH-3038", "ORCH-3053")
def test_a_crash_is_swept_up_then_backs_off_then_starts_as_a_new_incarnation() -> None:
    stage = ready_stage()

    sweep = stage.give(ev.EngineExited("p0", 1, "crash", "it crashed"))
    stage.give(ev.EngineStopped("p0", 1))
    phase, due = stage.replica().phase, stage.replica().due_ms
    effects = stage.pass_ms(1_200)

    assert only(sweep, ef.StopEngine) == [ef.StopEngine("p0", 1)]
    assert phase is Phase.BACKOFF
    assert due is not None
    assert 800 <= due <= 1_200
    assert only(effects, ef.VerifyModel) == [ef.VerifyModel("p0", 2)]
    assert stage.replica().restarts == 1


def crash_loop(stage: Stage) -> list[float]:
    """Every start exits at once, until the breaker opens; gives the times of the starts."""
    starts = []
    while stage.replica().phase is not Phase.BROKEN:
        inc = stage.replica().incarnation
        stage.give(ev.ModelVerified("p0", inc, DIGEST))
        stage.measure()
        starts.append(stage.now)
        stage.give(ev.EngineExited("p0", inc, "crash", "it crashed"))
        stage.give(ev.EngineStopped("p0", inc))
        if stage.replica().phase is Phase.BACKOFF:
            stage.pass_ms((stage.replica().due_ms or 0) - stage.now)
    return starts


@pytest.mark.orch("ORCH-3053")
def test_a_crash_loop_opens_the_breaker_after_five_starts() -> None:
    stage = make_stage()
    stage.give(BOTH)

    starts = crash_loop(stage)

    gaps = [round((later - earlier) / 1_000) for earlier, later in itertools.pairwise(starts)]
    assert len(starts) == 5
    assert all(0.8 * base <= gap <= 1.2 * base + 0.5 for gap, base in zip(gaps, (1, 2, 4, 8), strict=True))
    assert "breaker" in (stage.replica().cause or "")


@pytest.mark.orch("ORCH-3053")
def test_the_open_breaker_lets_one_probe_through_after_ten_minutes() -> None:
    stage = make_stage()
    stage.give(BOTH)
    crash_loop(stage)
    before = stage.pass_ms(HALF_OPEN_MS - 1)

    effects = stage.pass_ms(1)
    again = crash_loop(stage)

    assert only(before, ef.VerifyModel) == []
    assert len(only(effects, ef.VerifyModel)) == 1
    assert len(again) == 1, "the probe failed: the breaker is open again"


def test_an_operator_closes_the_breaker() -> None:
    stage = make_stage()
    stage.give(BOTH)
    crash_loop(stage)

    effects = stage.give(ev.ResumeRequested("p0"))

    assert len(only(effects, ef.VerifyModel)) == 1


def test_two_stable_minutes_forgive_old_failures() -> None:
    stage = ready_stage()
    stage.lose()
    stage.pass_ms(2_000)
    stage.serve()
    stage.pass_ms(STABLE_MS - 1)
    streak = stage.replica().history.streak

    stage.pass_ms(1)

    assert streak == 1
    assert stage.replica().history.streak == 0


def test_a_worker_that_was_replaced_meanwhile_is_not_stable() -> None:
    stage = ready_stage()
    stage.pass_ms(100_000)
    stage.lose()
    stage.pass_ms(2_000)
    stage.serve()

    stage.pass_ms(30_000)

    assert stage.replica().history.streak == 1


@pytest.mark.orch("ORCH-3053")
def test_a_gpu_that_comes_and_goes_starts_no_storm() -> None:
    stage = make_stage()
    for _ in range(20):
        stage.give(BOTH)
        stage.give(ev.ModelVerified("p0", stage.replica().incarnation, DIGEST))
        stage.measure()
        stage.give(ev.DevicesSeen(()))
        stage.give(ev.EngineStopped("p0", stage.replica().incarnation))
        stage.pass_ms(1_000)

    assert len(only(stage.done, ef.SpawnEngine)) == 5


# What becomes of the tasks


@pytest.mark.orch("ORCH-3045")
def test_a_strict_task_that_lost_its_worker_runs_again_before_all_others() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"), make_task("next"))
    aborts = stage.give(ev.EngineExited("p0", 1, "crash", "it crashed"))
    stage.answer_aborts(aborts, emitted=4)
    stage.give(ev.EngineStopped("p0", 1))
    stage.pass_ms(2_000)
    stage.serve()

    assert started(stage.done) == [("t", "p0"), ("t", "p0")]
    assert (stage.task("t").attempt, stage.task("t").emitted) == (2, 4)


def test_a_sibling_takes_it_over_at_once() -> None:
    stage = ready_stage(make_plan("p0"), make_plan("p1"))
    stage.submit(make_task("t"))

    stage.lose("p0")

    assert started(stage.done) == [("t", "p0"), ("t", "p1")]


def test_a_best_effort_task_without_tokens_runs_again_silently() -> None:
    stage = ready_stage(make_plan("p0"), make_plan("p1"))
    stage.submit(make_task("t", strict=False))

    stage.lose("p0")

    assert started(stage.done) == [("t", "p0"), ("t", "p1")]


def test_a_best_effort_task_with_tokens_ends_as_worker_reset() -> None:
    stage = ready_stage(make_plan("p0"), make_plan("p1"))
    stage.submit(make_task("t", strict=False))

    stage.answer_aborts(stage.give(ev.EngineExited("p0", 1, "crash", "it crashed")), emitted=1)

    error = error_of(stage.outcome("t"))
    assert (error.code, error.is_retriable, stage.outcome("t").emitted) == (Code.WORKER_RESET, True, 1)


@pytest.mark.orch("ORCH-3025")
def test_a_task_that_lost_two_workers_is_poison() -> None:
    stage = ready_stage(make_plan("p0"), make_plan("p1"), make_plan("p2"))
    stage.submit(make_task("t"))
    stage.lose("p0")
    stage.lose("p1")

    error = error_of(stage.outcome("t"))
    assert (error.code, error.reason, error.is_retriable) == (Code.WORKER_RESET, Reason.POISON, False)
    assert [pool for _, pool in started(stage.done)] == ["p0", "p1"], "it takes no third worker with it"


@pytest.mark.orch("ORCH-3025")
def test_workers_that_were_dead_before_the_task_came_do_not_make_it_poison() -> None:
    stage = ready_stage(make_plan("p0"), make_plan("p1"), make_plan("p2"))
    stage.submit(make_task("t"))
    for _ in range(2):
        event = ev.RunFailed(stage.run_of("t"), "engine", "refused", 0, is_worker_lost=True, is_unseen=True)
        stage.give(event)

    stage.finish("t")

    assert [pool for _, pool in started(stage.done)] == ["p0", "p1", "p2"]
    assert stage.outcome("t").error is None


@pytest.mark.orch("ORCH-3045")
def test_a_rerun_never_makes_the_emitted_count_smaller() -> None:
    stage = ready_stage(make_plan("p0"), make_plan("p1"))
    stage.submit(make_task("t"))
    stage.answer_aborts(stage.give(ev.EngineExited("p0", 1, "crash", "it crashed")), emitted=6)

    stage.finish("t", tokens=5)

    assert stage.outcome("t").emitted == 6


def lose_connection(stage: Stage, name: str) -> list[ef.Effect]:
    return stage.give(ev.RunFailed(stage.run_of(name), "engine", "the connection was cut", 0, is_worker_lost=True))


def test_a_worker_that_cut_a_connection_gets_nothing_until_it_was_seen_alive() -> None:
    stage = ready_stage(make_plan(slots=4))
    stage.submit(make_task("t", strict=False))

    effects = lose_connection(stage, "t")
    more = stage.submit(make_task("next", strict=False))
    alive = stage.give(ev.SlotsSeenIdle("p0", 1, (1,)))

    assert started(effects) == started(more) == []
    assert started(alive) == [("t", "p0"), ("next", "p0")]


def test_a_crash_that_is_seen_first_by_its_connections_costs_one_attempt() -> None:
    stage = ready_stage(make_plan(slots=4))
    stage.submit(make_task("t", strict=False), make_task("u", strict=False))
    lose_connection(stage, "t")
    lose_connection(stage, "u")

    stage.lose()
    stage.pass_ms(2_000)
    stage.serve()

    assert started(stage.done)[2:] == [("u", "p0"), ("t", "p0")]
    assert {stage.task(name).attempt for name in ("t", "u")} == {2}


@pytest.mark.orch("ORCH-3017")
def test_all_slots_of_the_next_incarnation_are_free() -> None:
    stage = ready_stage(make_plan(slots=2))
    stage.submit(make_task("t", strict=False), make_task("u", strict=False))
    stage.answer_aborts(stage.give(ev.CancelRequested("c", "u")))

    stage.lose()
    stage.pass_ms(2_000)
    stage.serve()

    assert stage.replica().freeing == set()
    assert stage.replica().load == 1, "t runs again, and nothing else takes a slot"
    assert violations(stage.core.state, stage.now) == []


def test_tasks_that_wait_stay_while_their_worker_restarts() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"), make_task("next"))
    stage.lose()
    phases = [type(stage.task(name).phase) for name in ("t", "next")]
    stage.pass_ms(2_000)
    stage.serve()

    assert phases == [Waiting, Waiting]
    assert isinstance(stage.task("t").phase, Running)


@pytest.mark.orch("ORCH-3018")
def test_tasks_that_wait_for_a_broken_worker_are_told_at_once() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"), make_task("next"))
    stage.lose()
    stage.pass_ms(2_000)
    crash_loop(stage)

    errors = [error_of(stage.outcome(name)) for name in ("t", "next")]
    assert [(error.code, error.reason) for error in errors] == [(Code.POOL_UNAVAILABLE, Reason.ENGINE)] * 2


def test_the_status_says_why_a_worker_is_down() -> None:
    stage = ready_stage()
    stage.lose()
    (note,) = [note for note in only(stage.done, ef.NoteWorker) if note.phase == "backoff"]

    assert note == ef.NoteWorker("p0", 1, Phase.BACKOFF, "it crashed")
    assert stage.replica().pid is None
