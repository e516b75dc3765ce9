"""An engine that answers its health check and gives nothing: probes while it is idle, stalls while it is not."""

from typing import Any

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.invariants import violations
from supervisor.core.lifecycle import Phase
from tests.core.builders import Stage, make_plan, make_task, only, ready_stage, started

EVERY_MS = 60_000
SILENCE = "the engine gave no finished within 15 s"


def idle_stage(**given: Any) -> Stage:
    return ready_stage(make_plan(probe_every_ms=EVERY_MS, wall_ms=600_000, **given))


def probe_of(effects: list[ef.Effect]) -> ef.ProbeIdleEngine:
    (probe,) = only(effects, ef.ProbeIdleEngine)
    return probe


def answer(stage: Stage, probe: ef.ProbeIdleEngine, cause: str | None = None) -> list[ef.Effect]:
    effects = stage.give(ev.IdleEngineProbed(probe.pool_id, probe.incarnation, probe.run_id, cause))
    assert violations(stage.core.state, stage.now) == []
    return effects


def stall(stage: Stage, name: str, *, tokens: int = 0) -> list[ef.Effect]:
    effects = stage.answer_aborts(stage.give(ev.RunStalled(stage.run_of(name), "first_token")), emitted=tokens)
    for asked in only(effects, ef.ConfirmSlotIdle):
        effects += stage.give(ev.SlotsSeenIdle(asked.pool_id, asked.incarnation, (asked.run_id,)))
    return effects


@pytest.mark.orch("ORCH-3038")
def test_an_idle_engine_is_asked_again_and_again_and_goes_on_serving() -> None:
    stage = idle_stage()
    early = stage.pass_ms(EVERY_MS - 1)
    first = probe_of(stage.pass_ms(1))
    answer(stage, first)
    second = probe_of(stage.pass_ms(EVERY_MS))

    assert only(early, ef.ProbeIdleEngine) == []
    assert (first.slot, first.within_ms) == (None, 15_000)
    assert second.run_id != first.run_id
    assert stage.replica().phase is Phase.READY


@pytest.mark.orch("ORCH-3038")
def test_a_failed_probe_is_repeated_at_once_and_a_second_failure_replaces_the_worker() -> None:
    stage = idle_stage(can_pin_slots=True)
    first = probe_of(stage.pass_ms(EVERY_MS))
    again = probe_of(answer(stage, first, SILENCE))
    effects = answer(stage, again, SILENCE)

    assert again == first
    assert only(effects, ef.StopEngine)
    assert stage.replica().load == 0
    assert stage.replica().cause == f"it answers and does not generate: {SILENCE}"


def test_one_failure_between_good_answers_replaces_nothing() -> None:
    stage = idle_stage()
    for _ in range(5):
        answer(stage, probe_of(answer(stage, probe_of(stage.pass_ms(EVERY_MS)), SILENCE)))

    assert (stage.replica().phase, stage.replica().load) == (Phase.READY, 0)


def test_a_task_waits_for_the_end_of_a_probe_on_the_only_slot_and_goes_beside_it_on_another() -> None:
    one, two = idle_stage(slots=1), idle_stage(slots=2)
    probe, _ = probe_of(one.pass_ms(EVERY_MS)), probe_of(two.pass_ms(EVERY_MS))
    waits = one.submit(make_task("a", strict=False))
    goes = two.submit(make_task("a", strict=False))

    assert (started(waits), started(goes)) == ([], [("a", "p0")])
    assert started(answer(one, probe)) == [("a", "p0")]


def test_a_strict_task_that_needs_the_worker_alone_waits_for_the_probe() -> None:
    stage = idle_stage(slots=2)
    probe = probe_of(stage.pass_ms(EVERY_MS))

    assert started(stage.submit(make_task("a"))) == []
    assert started(answer(stage, probe)) == [("a", "p0")]


def test_a_busy_worker_is_never_probed_and_what_it_gives_puts_the_next_probe_off() -> None:
    stage = idle_stage(slots=2, idle_ms=500_000)
    stage.submit(make_task("a", strict=False))
    busy = stage.pass_ms(EVERY_MS * 2 + EVERY_MS // 2)
    stage.finish("a")
    rest = stage.pass_ms(EVERY_MS - 1)

    assert only(busy + rest, ef.ProbeIdleEngine) == []
    assert len(only(stage.pass_ms(EVERY_MS), ef.ProbeIdleEngine)) == 1


def test_a_probe_never_takes_the_kv_of_a_session() -> None:
    stage = idle_stage(can_pin_slots=True)
    stage.submit(make_task("a", strict=False, session=b"s"))
    stage.finish("a", 3)
    kept = stage.pass_ms(EVERY_MS * 3)
    stage.give(ev.SessionEndRequested("tenant", b"s"))

    assert only(kept, ef.ProbeIdleEngine) == []
    assert probe_of(stage.pass_ms(EVERY_MS)).slot == 0


def test_a_probe_is_no_task() -> None:
    stage = idle_stage()
    effects = answer(stage, probe_of(stage.pass_ms(EVERY_MS)))

    assert stage.core.state.counts.enqueued == 0
    assert only(effects, ef.CommitFinish) == []
    assert not stage.core.state.runs


def test_the_answer_of_a_process_that_is_gone_changes_nothing() -> None:
    stage = idle_stage()
    probe = probe_of(stage.pass_ms(EVERY_MS))
    stage.lose()
    stage.pass_ms(5_000)
    stage.serve()
    late = answer(stage, probe, SILENCE) + answer(stage, probe, SILENCE)

    assert only(late, ef.StopEngine) == []
    assert (stage.replica().phase, stage.replica().load) == (Phase.READY, 0)


def test_an_answer_that_comes_twice_frees_one_slot_once() -> None:
    stage = idle_stage(slots=2)
    probe = probe_of(stage.pass_ms(EVERY_MS))
    answer(stage, probe)
    stage.submit(make_task("a", strict=False))
    answer(stage, probe)
    answer(stage, probe, SILENCE)

    assert stage.replica().load == 1


def test_a_late_answer_to_an_earlier_probe_says_nothing_about_the_one_under_way() -> None:
    stage = idle_stage()
    first = probe_of(stage.pass_ms(EVERY_MS))
    answer(stage, first)
    second = probe_of(stage.pass_ms(EVERY_MS))
    late = answer(stage, first, SILENCE) + answer(stage, first, SILENCE)

    assert late == []
    assert stage.replica().generating.probe == second.run_id


def test_nobody_is_probed_while_the_daemon_stops() -> None:
    plans = [make_plan(name, probe_every_ms=EVERY_MS, wall_ms=600_000, idle_ms=500_000) for name in ("p0", "p1")]
    stage = ready_stage(*plans)
    stage.submit(make_task("a"))
    stage.give(ev.HaltRequested(EVERY_MS * 3))

    assert only(stage.pass_ms(EVERY_MS * 2), ef.ProbeIdleEngine) == []


@pytest.mark.orch("ORCH-3016", "ORCH-3038")
def test_three_silent_stalls_in_a_row_replace_the_worker() -> None:
    stage = ready_stage()
    stops = []
    for name in ("a", "b", "c"):
        stage.submit(make_task(name))
        stops.append(only(stall(stage, name), ef.StopEngine) != [])

    assert stops == [False, False, True]
    assert stage.replica().cause == "3 tasks in a row stalled and it gave no token in between"


@pytest.mark.parametrize("proof", ["first token", "whole answer"])
def test_a_token_in_between_starts_the_count_anew(proof: str) -> None:
    stage = ready_stage()
    for name in ("a", "b"):
        stage.submit(make_task(name))
        stall(stage, name)
    stage.submit(make_task("good"))
    if proof == "first token":
        stage.give(ev.FirstTokenCame(stage.run_of("good")))
        stall(stage, "good", tokens=1)
    else:
        stage.finish("good")
    stage.submit(make_task("c"))

    assert only(stall(stage, "c"), ef.StopEngine) == []
    assert stage.replica().phase is Phase.READY


def test_while_another_run_may_still_give_tokens_nothing_is_replaced() -> None:
    stage = ready_stage(make_plan(slots=2))
    stage.submit(make_task("long", strict=False))
    for name in ("a", "b", "c"):
        stage.submit(make_task(name, strict=False))
        stall(stage, name)
    held = stage.replica().phase
    effects = stall(stage, "long")

    assert held is Phase.READY
    assert only(effects, ef.StopEngine)


def test_a_worker_that_holds_its_memory_elsewhere_is_replaced_while_it_serves() -> None:
    stage = ready_stage()
    wrong = ev.EngineMisplaced("p0", stage.replica().incarnation, "residency: it holds no memory on GPU GPU-0")
    first, second = stage.give(wrong), stage.give(wrong)

    assert (len(only(first, ef.StopEngine)), only(second, ef.StopEngine)) == (1, [])
    assert stage.replica().cause == wrong.cause
