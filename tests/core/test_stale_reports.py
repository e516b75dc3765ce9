"""Late and repeated reports: of a worker, a run or a task of the past. They change nothing."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.lifecycle import Phase
from supervisor.wire.codes import FinishReason
from tests.core.builders import BOTH, CTX, DIGEST, VERSION, Stage, make_plan, make_stage, make_task, ready_stage


def picture(stage: Stage) -> Any:
    """Everything the core knows, as plain values; what is only a marker for the next look is left aside."""
    state = stage.core.state
    waiting = {home.set_id: [task.job_id for task in home.waiting] for home in state.sets.values()}
    rest = {
        name: getattr(state, name)
        for name in state.__struct_fields__
        if name not in ("agenda", "dirty", "sets", "routes")
    }
    return msgspec.to_builtins((rest, waiting, len(state.agenda)), enc_hook=repr, str_keys=True)


def worker_reports(incarnation: int, run_id: int) -> list[ev.Event]:
    """One of each report that carries an incarnation."""
    return [
        ev.ModelVerified("p0", incarnation, DIGEST),
        ev.RoomMeasured("p0", incarnation, (), 0, 1),
        ev.EngineSpawned("p0", incarnation, 666, 6666),
        ev.EngineHealthy("p0", incarnation),
        ev.EngineInspected("p0", incarnation, "b999", 9, CTX),
        ev.StepPassed("p0", incarnation, "late", 1.0),
        ev.EngineTested("p0", incarnation),
        ev.StepFailed("p0", incarnation, "late"),
        ev.EngineExited("p0", incarnation, "crash", "late"),
        ev.EngineStopped("p0", incarnation),
        ev.SlotsSeenIdle("p0", incarnation, (run_id,)),
        ev.SlotStuck("p0", incarnation, run_id),
    ]


def run_reports(run_id: int) -> list[ev.Event]:
    return [
        ev.FirstTokenCame(run_id),
        ev.RunFinished(run_id, FinishReason.STOP, 1, 99, 99, 1.0),
        ev.RunFailed(run_id, "engine", "late", 99),
        ev.RunFailed(run_id, "engine", "late", 99, is_worker_lost=True),
        ev.RunFailed(run_id, "engine", "late", 99, is_client_fault=True),
        ev.RunStalled(run_id, "idle"),
        ev.RunAborted(run_id, None, 99, 99, 1.0),
    ]


def second_life(phase: Phase) -> Stage:
    """Incarnation 1 ran tasks 1 (lost) and 2 (cancelled) and died; incarnation 2 has come to `phase`."""
    stage = ready_stage(make_plan(slots=2))
    stage.submit(make_task("t", strict=False), make_task("u", strict=False), make_task("w", strict=False))
    stage.answer_aborts(stage.give(ev.CancelRequested("c", "u")))
    aborts = stage.give(ev.EngineExited("p0", 1, "crash", "it crashed"))
    stage.answer_aborts(aborts)
    if phase is Phase.STOPPING:
        return stage
    stage.give(ev.EngineStopped("p0", 1))
    if phase is not Phase.BACKOFF:
        stage.pass_ms(2_000)
    steps: dict[Phase, list[ev.Event]] = {
        Phase.MEASURING: [ev.ModelVerified("p0", 2, DIGEST)],
        Phase.SPAWNING: [ev.RoomMeasured("p0", 2, (), 1, 0)],
        Phase.LOADING: [ev.EngineSpawned("p0", 2, 102, 9002)],
        Phase.INSPECTING: [ev.EngineHealthy("p0", 2)],
        Phase.TESTING: [ev.EngineInspected("p0", 2, VERSION, 2, CTX)],
        Phase.READY: [ev.EngineTested("p0", 2)],
    }
    for each, events in steps.items():
        if stage.replica().phase is phase:
            break
        for event in events:
            stage.give(event)
        if each is phase:
            break
    assert stage.replica().phase is phase
    return stage


LATER = [Phase.VERIFYING, Phase.MEASURING, Phase.SPAWNING, Phase.LOADING, Phase.INSPECTING, Phase.TESTING, Phase.READY]


@pytest.mark.parametrize("phase", LATER)
@pytest.mark.parametrize("event", worker_reports(1, 2), ids=lambda event: type(event).__name__)
def test_a_report_of_a_dead_incarnation_changes_nothing(phase: Phase, event: ev.Event) -> None:
    stage = second_life(phase)
    before = picture(stage)

    effects = stage.give(event)

    assert effects == []
    assert picture(stage) == before


@pytest.mark.parametrize("phase", [Phase.BACKOFF, *LATER])
@pytest.mark.parametrize("event", [event for run_id in (1, 2, 77) for event in run_reports(run_id)], ids=repr)
def test_a_report_of_a_run_that_is_over_changes_nothing(phase: Phase, event: ev.Event) -> None:
    stage = second_life(phase)
    before = picture(stage)

    effects = stage.give(event)

    assert effects == []
    assert picture(stage) == before


@pytest.mark.parametrize(
    "event",
    [event for event in worker_reports(1, 2) if not isinstance(event, ev.EngineStopped)],
    ids=lambda event: type(event).__name__,
)
def test_after_the_end_of_its_process_a_worker_takes_no_report_of_it(event: ev.Event) -> None:
    stage = second_life(Phase.BACKOFF)
    before = picture(stage)

    effects = stage.give(event)

    assert effects == []
    assert picture(stage) == before


@pytest.mark.parametrize(
    "event",
    [event for event in worker_reports(1, 2) if not isinstance(event, ev.EngineStopped)],
    ids=lambda event: type(event).__name__,
)
def test_while_a_worker_is_stopped_only_the_end_of_the_stop_counts(event: ev.Event) -> None:
    stage = second_life(Phase.STOPPING)
    before = picture(stage)

    effects = stage.give(event)

    assert effects == []
    assert picture(stage) == before


FIRST_LIFE: list[ev.Event] = [
    ev.ModelVerified("p0", 1, DIGEST),
    ev.EngineSpawned("p0", 1, 101, 9001),
    ev.EngineHealthy("p0", 1),
    ev.EngineInspected("p0", 1, VERSION, 1, CTX),
    ev.StepPassed("p0", 1, "minimal decode", 1.0),
    ev.EngineTested("p0", 1),
]


@given(st.data())
def test_repeated_reports_on_the_way_to_ready_change_nothing(data: st.DataObject) -> None:
    stage = make_stage()
    stage.give(BOTH)
    for index, event in enumerate(FIRST_LIFE):
        stage.give(event)
        before = picture(stage)
        repeated = data.draw(st.lists(st.sampled_from(FIRST_LIFE[: index + 1]), max_size=3))
        again = [each for each in repeated if not isinstance(each, ev.StepPassed)]

        assert [stage.give(each) for each in again] == [[] for _ in again]
        assert picture(stage) == before


def test_an_alarm_that_comes_too_early_or_twice_does_nothing() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))
    before = picture(stage)

    assert stage.give(ev.TimePassed()) == stage.give(ev.TimePassed()) == []
    assert picture(stage) == before


def test_a_stop_is_asked_for_once_however_many_reports_say_so() -> None:
    stage = ready_stage()
    effects: list[ef.Effect] = []
    for event in (
        ev.EngineExited("p0", 1, "crash", "it crashed"),
        ev.StepFailed("p0", 1, "late"),
        ev.EngineExited("p0", 1, "crash", "it crashed"),
    ):
        effects += stage.give(event)

    assert [effect for effect in effects if isinstance(effect, ef.StopEngine)] == [ef.StopEngine("p0", 1)]
