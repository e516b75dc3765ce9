"""Sessions: which turn finds its KV, how long it may, whose slot is taken first, and what a lost worker leaves."""

from typing import Any

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core import sessions
from supervisor.core.invariants import violations
from supervisor.core.plan import HostPlan, PoolPlan
from supervisor.core.session import Session
from supervisor.core.tasks import Task, Waiting
from supervisor.wire.codes import FinishReason
from tests.core.builders import Stage, make_plan, make_task, only, ready_stage, started

TTL_MS = 600_000
TURNS_MAX = 8
A, B, C = (bytes([number]) * 16 for number in range(3))


def a_pool(pool_id: str = "p0", slots: int = 2, **given: Any) -> PoolPlan:
    return make_plan(pool_id, slots=slots, can_pin_slots=True, **given)


def a_turn(name: str, session: bytes | None, **given: Any) -> Task:
    return make_task(name, strict=False, session=session, **given)


def run_turn(stage: Stage, name: str, session: bytes | None, **given: Any) -> ef.StartRun:
    """A turn from submit to its end, and what its run was given."""
    (run,) = only(stage.submit(a_turn(name, session, **given)), ef.StartRun)
    stage.give(ev.RunFinished(run.run_id, FinishReason.STOP, 7, 3, 3, 5.0, 6 if run.kv_warmth else 0))
    assert violations(stage.core.state, stage.now) == []
    return run


def seen(stage: Stage, session: bytes, tenant: str = "tenant") -> Session:
    found = sessions.find(stage.core.state, (tenant, session))
    assert found is not None
    return found


def evictions(effects: list[ef.Effect]) -> list[str]:
    return [effect.pool_id for effect in only(effects, ef.NoteEviction)]


@pytest.mark.orch("ORCH-3009")
def test_a_second_turn_runs_in_the_slot_of_the_first_and_is_warm() -> None:
    stage = ready_stage(a_pool("p0"), a_pool("p1"))
    first = run_turn(stage, "a1", A)
    run_turn(stage, "b1", B)

    second = run_turn(stage, "a2", A)

    assert not first.kv_warmth
    assert (second.pool_id, second.slot, second.kv_warmth) == (first.pool_id, first.slot, True)
    assert (stage.outcome("a1").kv_warmth, stage.outcome("a2").kv_warmth) == (False, True)
    assert (seen(stage, A).turns, seen(stage, A).tokens) == (2, 10)


@pytest.mark.orch("ORCH-3009")
def test_warmth_at_the_end_is_what_the_engine_proved() -> None:
    stage = ready_stage(a_pool())
    run_turn(stage, "a1", A)

    (run,) = only(stage.submit(a_turn("a2", A)), ef.StartRun)
    stage.give(ev.RunFinished(run.run_id, FinishReason.STOP, 7, 3, 3, 5.0, 0))

    assert run.kv_warmth
    assert not stage.outcome("a2").kv_warmth


def test_a_task_without_a_session_neither_reads_nor_leaves_any_kv() -> None:
    stage = ready_stage(a_pool())

    runs = [run_turn(stage, f"t{number}", None) for number in range(3)]

    assert not any(run.kv_warmth for run in runs)
    assert not stage.core.state.sessions


@pytest.mark.orch("ORCH-3045")
def test_a_strict_task_takes_slot_0_and_with_it_the_kv_that_lay_there() -> None:
    stage = ready_stage(a_pool(slots=2))
    first = run_turn(stage, "a1", A)

    (strict,) = only(stage.submit(make_task("strict")), ef.StartRun)
    stage.finish("strict")

    assert (first.slot, strict.slot, strict.kv_warmth) == (0, 0, False)
    assert not run_turn(stage, "a2", A).kv_warmth


def test_a_strict_task_leaves_a_session_in_another_slot_alone() -> None:
    stage = ready_stage(a_pool(slots=2))
    stage.submit(a_turn("busy", None))
    run_turn(stage, "a1", A)
    stage.finish("busy")

    (strict,) = only(stage.submit(make_task("strict")), ef.StartRun)
    stage.finish("strict")

    assert strict.slot == 0
    assert run_turn(stage, "a2", A).kv_warmth


@pytest.mark.orch("ORCH-3022")
def test_a_foreign_task_takes_a_cold_slot_while_there_is_one() -> None:
    stage = ready_stage(a_pool(slots=3))
    warm = run_turn(stage, "a1", A)

    effects = stage.submit(a_turn("x", None), a_turn("y", None))

    assert warm.slot not in {run.slot for run in only(effects, ef.StartRun)}
    assert evictions(effects) == []


@pytest.mark.orch("ORCH-3022")
def test_without_a_cold_slot_the_session_that_was_served_longest_ago_loses_its_kv() -> None:
    stage = ready_stage(a_pool(slots=2))
    run_turn(stage, "a1", A)
    run_turn(stage, "b1", B)
    run_turn(stage, "a2", A)

    effects = stage.submit(a_turn("x", None))
    stage.finish("x")

    assert evictions(effects) == ["p0"]
    assert run_turn(stage, "a3", A).kv_warmth
    assert not run_turn(stage, "b2", B).kv_warmth
    assert seen(stage, B).turns == 2


@pytest.mark.orch("ORCH-3021")
@pytest.mark.parametrize(("age_ms", "is_warm", "turns"), [(TTL_MS - 1, True, 2), (TTL_MS, False, 1)])
def test_the_kv_lives_for_the_ttl_from_the_first_turn_and_no_longer(age_ms: float, is_warm: bool, turns: int) -> None:
    stage = ready_stage(a_pool())
    run_turn(stage, "a1", A)
    stage.pass_ms(age_ms)

    run = run_turn(stage, "a2", A, admitted_ms=stage.now)

    assert run.kv_warmth is is_warm
    assert seen(stage, A).turns == turns
    assert evictions(stage.done) == ([] if is_warm else ["p0"])


@pytest.mark.orch("ORCH-3021")
def test_later_turns_do_not_lengthen_the_life() -> None:
    stage = ready_stage(a_pool())
    run_turn(stage, "a1", A)
    stage.pass_ms(TTL_MS - 1)
    run_turn(stage, "a2", A)

    stage.pass_ms(1)

    assert sessions.find(stage.core.state, ("tenant", A)) is None


@pytest.mark.orch("ORCH-3021")
def test_a_turn_that_is_dispatched_at_the_end_of_the_life_is_cold_whatever_comes_first() -> None:
    stage = ready_stage(a_pool())
    run_turn(stage, "a1", A)
    stage.now = TTL_MS  # the alarm is due as well, and was not handled yet

    run = run_turn(stage, "a2", A)

    assert not run.kv_warmth
    assert seen(stage, A).turns == 1


@pytest.mark.orch("ORCH-3021")
def test_the_ninth_turn_is_the_first_of_another_life() -> None:
    stage = ready_stage(a_pool())

    runs = [run_turn(stage, f"a{number}", A) for number in range(1, 11)]

    assert [run.kv_warmth for run in runs] == [False, *[True] * 7, False, True]
    assert evictions(stage.done) == ["p0"]
    assert seen(stage, A).turns == 2


def test_the_kv_of_a_last_turn_makes_room_at_once() -> None:
    stage = ready_stage(a_pool(), host=HostPlan(session_turns_max=1))

    run_turn(stage, "a1", A)

    assert (seen(stage, A).turns, seen(stage, A).seat, seen(stage, A).tokens) == (1, None, 0)


@pytest.mark.orch("ORCH-3009", "ORCH-3023")
def test_a_lost_worker_leaves_the_session_cold_and_its_turns_counted() -> None:
    stage = ready_stage(a_pool("p0"), a_pool("p1"))
    first = run_turn(stage, "a1", A)
    stage.lose(first.pool_id)

    second = run_turn(stage, "a2", A)

    assert (first.pool_id, second.pool_id, second.kv_warmth) == ("p0", "p1", False)
    assert seen(stage, A).turns == 2
    assert evictions(stage.done) == []


@pytest.mark.orch("ORCH-3023")
def test_the_next_process_of_the_same_worker_knows_nothing_of_it() -> None:
    stage = ready_stage(a_pool(slots=1))
    run_turn(stage, "a1", A)
    stage.lose()
    stage.pass_ms(60_000)
    stage.serve()

    assert not run_turn(stage, "a2", A).kv_warmth


@pytest.mark.orch("ORCH-3023")
def test_a_turn_that_lost_its_worker_is_run_again_cold_and_counts_once() -> None:
    stage = ready_stage(a_pool("p0"), a_pool("p1"))
    run_turn(stage, "a1", A)
    stage.submit(a_turn("a2", A))

    stage.lose("p0")
    run = only(stage.done, ef.StartRun)[-1]
    stage.finish("a2")

    assert (run.task.job_id, run.pool_id, run.kv_warmth) == ("a2", "p1", False)
    assert seen(stage, A).turns == 2
    assert run_turn(stage, "a3", A).pool_id == "p1"


def test_a_drained_worker_gives_its_sessions_up_and_a_resumed_one_has_none() -> None:
    stage = ready_stage(a_pool())
    run_turn(stage, "a1", A)
    stage.submit(a_turn("b1", B))

    effects = stage.give(ev.DrainRequested("p0", 60_000))
    stage.finish("b1")
    stage.give(ev.ResumeRequested("p0"))

    assert evictions(effects) == ["p0"]
    assert not run_turn(stage, "a2", A).kv_warmth
    assert not run_turn(stage, "b2", B).kv_warmth


@pytest.mark.orch("ORCH-3008", "ORCH-3009")
@pytest.mark.parametrize(("others", "is_warm"), [(0, True), (1, True), (2, False)])
def test_affinity_gives_way_to_a_load_gap_of_more_than_one_slot(others: int, is_warm: bool) -> None:
    stage = ready_stage(a_pool("p0", 4), a_pool("p1", 4))
    first = run_turn(stage, "a1", A)
    stage.give(ev.DrainRequested("p1", 60_000))
    stage.submit(*(a_turn(f"x{number}", None) for number in range(others)))
    stage.give(ev.ResumeRequested("p1"))

    run = run_turn(stage, "a2", A)

    assert first.pool_id == "p0"
    assert (run.kv_warmth, run.pool_id) == (is_warm, "p0" if is_warm else "p1")


def test_a_session_that_moved_left_nothing_behind() -> None:
    stage = ready_stage(a_pool("p0", 4), a_pool("p1", 4))
    run_turn(stage, "a1", A)
    stage.give(ev.DrainRequested("p1", 60_000))
    stage.submit(a_turn("x0", None), a_turn("x1", None))
    stage.give(ev.ResumeRequested("p1"))
    run_turn(stage, "a2", A)

    assert evictions(stage.done) == ["p0"]
    assert stage.replica("p0").slot_table.warm() == {}
    assert run_turn(stage, "a3", A).pool_id == "p1"


@pytest.mark.orch("ORCH-3009")
def test_a_task_never_waits_for_its_warm_worker_while_another_has_room() -> None:
    stage = ready_stage(a_pool("p0", 1), a_pool("p1", 1))
    run_turn(stage, "a1", A)
    stage.submit(a_turn("x", None))

    run = run_turn(stage, "a2", A)

    assert (run.pool_id, run.kv_warmth) == ("p1", False)


@pytest.mark.orch("ORCH-3011", "ORCH-3009")
def test_a_turn_for_another_model_goes_to_that_model_and_takes_the_session_with_it() -> None:
    other = a_pool("p1", model_ref="n", model_refs=frozenset({"n"}), model_digest="sha256:n")
    stage = ready_stage(a_pool("p0"), other)
    run_turn(stage, "a1", A)

    run = run_turn(stage, "a2", A, model_ref="n")

    assert (run.pool_id, run.kv_warmth) == ("p1", False)
    assert stage.replica("p0").slot_table.warm() == {}


@pytest.mark.orch("ORCH-3045", "ORCH-3009")
def test_a_warm_slot_beside_a_strict_task_is_not_taken() -> None:
    stage = ready_stage(a_pool("p0", 2), a_pool("p1", 2))
    stage.submit(a_turn("busy", None), a_turn("other", None))
    first = run_turn(stage, "a1", A)
    stage.finish("busy")
    (strict,) = only(stage.submit(make_task("strict")), ef.StartRun)
    stage.finish("other")

    run = run_turn(stage, "a2", A)

    assert (first.pool_id, first.slot, strict.pool_id) == ("p0", 1, "p0")
    assert (run.pool_id, run.kv_warmth) == ("p1", False)


def test_a_turn_that_runs_elsewhere_takes_the_slot_of_the_session_served_longest_ago() -> None:
    stage = ready_stage(a_pool(slots=1))
    run_turn(stage, "a1", A)

    run_turn(stage, "b1", B)

    assert evictions(stage.done) == ["p0"]
    assert (seen(stage, A).seat, seen(stage, A).tokens) == (None, 0)


def test_a_task_waits_where_no_worker_has_room() -> None:
    stage = ready_stage(a_pool("p0", 1))
    stage.submit(a_turn("a1", A))

    assert started(stage.submit(a_turn("a2", A))) == []
    assert isinstance(stage.task("a2").phase, Waiting)


def test_two_turns_at_once_are_two_cold_runs_and_the_later_one_keeps_the_session() -> None:
    stage = ready_stage(a_pool(slots=2))

    one, two = only(stage.submit(a_turn("a1", A), a_turn("a2", A)), ef.StartRun)
    stage.finish("a2")
    stage.finish("a1")

    assert not one.kv_warmth
    assert not two.kv_warmth
    assert run_turn(stage, "a3", A).slot == two.slot
    assert violations(stage.core.state, stage.now) == []


def test_the_same_id_of_another_tenant_is_another_session() -> None:
    stage = ready_stage(a_pool())
    run_turn(stage, "a1", A)

    run = run_turn(stage, "b1", A, tenant="other")

    assert not run.kv_warmth
    assert (seen(stage, A).turns, seen(stage, A, "other").turns) == (1, 1)


def test_a_cancelled_turn_leaves_what_it_had_once_its_slot_is_idle() -> None:
    stage = ready_stage(a_pool(slots=1))
    run_turn(stage, "a1", A)
    stage.submit(a_turn("a2", A))
    run_id = stage.run_of("a2")
    stage.answer_aborts(stage.give(ev.CancelRequested("c", "a2")), emitted=4)
    stage.give(ev.SlotsSeenIdle("p0", 1, (run_id,)))

    run = run_turn(stage, "a3", A)

    assert stage.outcome("a2").kv_warmth
    assert run.kv_warmth


@pytest.mark.parametrize("how", ["cancelled before a token", "failed", "stalled"])
def test_a_turn_that_came_to_nothing_leaves_no_kv(how: str) -> None:
    stage = ready_stage(a_pool(slots=1))
    run_turn(stage, "a1", A)
    stage.submit(a_turn("a2", A))
    run_id = stage.run_of("a2")
    match how:
        case "failed":
            stage.give(ev.RunFailed(run_id, "engine", "it broke", 2))
        case "stalled":
            stage.answer_aborts(stage.give(ev.RunStalled(run_id, "idle")), emitted=2)
        case _:
            stage.answer_aborts(stage.give(ev.CancelRequested("c", "a2")))
    stage.give(ev.SlotsSeenIdle("p0", 1, (run_id,)))

    assert not run_turn(stage, "a3", A).kv_warmth


def test_a_deleted_session_is_gone_and_the_next_turn_is_its_first() -> None:
    stage = ready_stage(a_pool())
    run_turn(stage, "a1", A)

    effects = stage.give(ev.SessionEndRequested("tenant", A)) + stage.give(ev.SessionEndRequested("tenant", A))
    gone = sessions.find(stage.core.state, ("tenant", A))
    run = run_turn(stage, "a2", A)

    assert evictions(effects) == ["p0"]
    assert gone is None
    assert not run.kv_warmth
    assert seen(stage, A).turns == 1


def test_a_session_deleted_during_a_turn_leaves_nothing_in_its_slot() -> None:
    stage = ready_stage(a_pool())
    stage.submit(a_turn("a1", A))
    stage.give(ev.SessionEndRequested("tenant", A))
    stage.finish("a1")

    assert stage.replica().slot_table.warm() == {}
    assert not run_turn(stage, "a2", A).kv_warmth


def test_a_session_that_expires_during_a_turn_leaves_nothing_in_its_slot() -> None:
    stage = ready_stage(a_pool(wall_ms=10 * TTL_MS))
    stage.submit(a_turn("a1", A))
    stage.pass_ms(TTL_MS)
    stage.finish("a1")

    assert not stage.core.state.sessions
    assert stage.replica().slot_table.warm() == {}


@pytest.mark.orch("ORCH-3022")
def test_of_too_many_sessions_the_one_served_longest_ago_is_forgotten() -> None:
    stage = ready_stage(a_pool(slots=4), host=HostPlan(sessions_max=2))
    for name, session in (("a1", A), ("b1", B), ("a2", A), ("c1", C)):
        run_turn(stage, name, session)

    assert [key[1] for key in stage.core.state.sessions] == [A, C]
    assert evictions(stage.done) == ["p0"]


def test_an_engine_that_takes_no_slot_is_told_none_and_its_sessions_stay_with_it_all_the_same() -> None:
    stage = ready_stage(make_plan("p0", slots=2), make_plan("p1", slots=2))
    first = run_turn(stage, "a1", A)

    second = run_turn(stage, "a2", A)

    assert (first.slot, second.slot) == (None, None)
    assert (second.pool_id, second.kv_warmth) == (first.pool_id, True)


@pytest.mark.orch("ORCH-3008")
def test_of_equally_loaded_workers_the_one_with_the_most_free_vram_then_the_first_by_name() -> None:
    stage = ready_stage(a_pool("a", devices=(0,)), a_pool("b", devices=(1,)), a_pool("c", devices=(1,)))
    seen_now = tuple(ev.DeviceSeen(f"GPU-{index}", index, "H100", 81_920, free) for index, free in enumerate((10, 99)))
    stage.give(ev.DevicesSeen(seen_now))

    effects = stage.submit(*(a_turn(f"t{number}", None) for number in range(3)))

    assert [pool for _, pool in started(effects)] == ["b", "c", "a"]


def test_a_pool_on_two_devices_has_the_free_vram_of_the_tighter_one() -> None:
    stage = ready_stage(a_pool("a", devices=(0, 1)), a_pool("b", devices=(1,)))
    stage.give(
        ev.DevicesSeen((ev.DeviceSeen("GPU-0", 0, "H100", 81_920, 10), ev.DeviceSeen("GPU-1", 1, "H100", 81_920, 20)))
    )

    assert started(stage.submit(a_turn("t", None))) == [("t", "b")]


@pytest.mark.orch("ORCH-3021")
def test_turns_that_are_run_again_in_another_life_are_turns_of_that_life() -> None:
    stage = ready_stage(a_pool(slots=TURNS_MAX))
    stage.submit(*(a_turn(f"a{number}", A) for number in range(TURNS_MAX)))
    stage.lose()
    stage.pass_ms(2_000)
    stage.serve()
    for number in range(TURNS_MAX):
        stage.finish(f"a{number}")

    again = seen(stage, A)
    run_turn(stage, "b", A)

    assert again.turns == TURNS_MAX
    assert seen(stage, A) is not again
    assert seen(stage, A).turns == 1


def turn_away(stage: Stage, name: str) -> None:
    """The engine refuses a run because it is busy, and is tried again once its pause is over."""
    run_id = stage.run_of(name)
    stage.give(ev.RunFailed(run_id, "busy", "it is busy", 0, is_busy=True))
    stage.give(ev.SlotsSeenIdle("p0", stage.replica().incarnation, (run_id,)))
    assert violations(stage.core.state, stage.now) == []
    stage.pass_ms(60_000)


@pytest.mark.orch("ORCH-3009")
@pytest.mark.parametrize("turns_before", [1, TURNS_MAX - 1])
def test_a_turn_that_a_busy_engine_refused_finds_its_kv_when_it_is_taken(turns_before: int) -> None:
    stage = ready_stage(a_pool(slots=1))
    for number in range(turns_before):
        run_turn(stage, f"a{number}", A)
    stage.submit(a_turn("refused", A))
    turn_away(stage, "refused")

    run = only(stage.done, ef.StartRun)[-1]

    assert (run.task.job_id, run.kv_warmth) == ("refused", True)
    assert evictions(stage.done) == []
    assert seen(stage, A).turns == turns_before + 1


def test_a_refused_turn_that_found_no_kv_leaves_none() -> None:
    stage = ready_stage(a_pool(slots=1))
    stage.submit(a_turn("a1", A))
    turn_away(stage, "a1")

    assert not only(stage.done, ef.StartRun)[-1].kv_warmth
    assert seen(stage, A).turns == 1
