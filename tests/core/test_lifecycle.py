"""The table of a worker's life: total, reachable, and each move stands where it should."""

from collections import deque

import pytest

from supervisor.core.lifecycle import TABLE, Ignored, Move, Phase, Signal, decide
from supervisor.core.workers import _MOVES

STARTING = (Phase.SPAWNING, Phase.LOADING, Phase.INSPECTING, Phase.TESTING)
PROCESS = (*STARTING, Phase.READY)

NEXT: dict[Move, tuple[Phase, ...]] = {
    Move.PLACE: (Phase.VERIFYING, Phase.BROKEN),
    Move.VERIFY: (Phase.VERIFYING, Phase.BROKEN),
    Move.MEASURE: (Phase.MEASURING,),
    Move.AWAIT_ROOM: (Phase.BACKOFF,),
    Move.ADOPT: (Phase.SPAWNING,),
    Move.SPAWN: (Phase.SPAWNING,),
    Move.AWAIT_HEALTH: (Phase.LOADING,),
    Move.INSPECT: (Phase.INSPECTING,),
    Move.TEST: (Phase.TESTING,),
    Move.SERVE: (Phase.READY,),
    Move.BACK_OFF: (Phase.BACKOFF, Phase.BROKEN),
    Move.STOP_AND_RETRY: (Phase.STOPPING,),
    Move.STOP_UNPLACED: (Phase.STOPPING,),
    Move.STOP_TO_REST: (Phase.STOPPING,),
    Move.REST: (Phase.RESTING,),
    Move.WAKE: (Phase.IDLE,),
    Move.REROUTE_TO_REST: (Phase.RESTING,),
    Move.STOP_FOR_GOOD: (Phase.STOPPING,),
    Move.CLEAN_UP: (Phase.STOPPING,),
    Move.UNPLACE: (Phase.UNPLACED,),
    Move.AFTER_STOP: (Phase.BACKOFF, Phase.BROKEN, Phase.UNPLACED, Phase.OFF),
    Move.TURN_OFF: (Phase.OFF,),
    Move.REROUTE_TO_OFF: (Phase.STOPPING,),
    Move.REROUTE_TO_UNPLACED: (Phase.STOPPING,),
    Move.REROUTE_TO_RETRY: (Phase.STOPPING,),
}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("signal", Signal)
def test_every_pair_is_a_move_or_is_ignored_with_a_reason(phase: Phase, signal: Signal) -> None:
    cell = decide(phase, signal)

    if isinstance(cell, Ignored):
        assert len(cell.reason) > 5
    else:
        assert cell in Move


def test_every_phase_is_reachable_from_idle_by_signals() -> None:
    seen, todo = {Phase.IDLE}, deque([Phase.IDLE])
    while todo:
        phase = todo.popleft()
        moves = [cell for cell in (decide(phase, signal) for signal in Signal) if isinstance(cell, Move)]
        fresh = {target for move in moves for target in NEXT[move]} - seen
        seen |= fresh
        todo.extend(sorted(fresh))

    assert seen == set(Phase)


def test_every_move_is_in_the_table_and_can_be_made() -> None:
    used = {cell for cell in TABLE.values() if isinstance(cell, Move)}

    assert used == set(Move) == set(_MOVES)


def test_off_is_the_end() -> None:
    assert all(isinstance(decide(Phase.OFF, signal), Ignored) for signal in Signal)


def test_from_every_other_phase_a_halt_leads_to_off() -> None:
    moves: dict[Phase, object] = {phase: decide(phase, Signal.HALT) for phase in Phase if phase is not Phase.OFF}

    assert {moves[phase] for phase in PROCESS} == {Move.STOP_FOR_GOOD}
    assert moves[Phase.STOPPING] is Move.REROUTE_TO_OFF
    rest = set(moves) - set(PROCESS) - {Phase.STOPPING}
    assert {moves[phase] for phase in rest} == {Move.TURN_OFF}


@pytest.mark.orch("ORCH-3002", "ORCH-3037")
@pytest.mark.parametrize(
    ("phase", "signal", "move"),
    [
        (Phase.IDLE, Signal.DEVICES_FOUND, Move.PLACE),
        (Phase.VERIFYING, Signal.MODEL_VERIFIED, Move.MEASURE),
        (Phase.VERIFYING, Signal.ENGINE_FOUND, Move.ADOPT),
        (Phase.MEASURING, Signal.ROOM_FOUND, Move.SPAWN),
        (Phase.SPAWNING, Signal.SPAWNED, Move.AWAIT_HEALTH),
        (Phase.LOADING, Signal.HEALTHY, Move.INSPECT),
        (Phase.INSPECTING, Signal.INSPECTED, Move.TEST),
        (Phase.TESTING, Signal.TESTED, Move.SERVE),
    ],
)
def test_the_one_way_to_ready(phase: Phase, signal: Signal, move: Move) -> None:
    elsewhere = [each for each in Phase if each is not phase and decide(each, signal) is move]

    assert decide(phase, signal) is move
    assert elsewhere == ([Phase.UNPLACED] if phase is Phase.IDLE else [])


@pytest.mark.parametrize("phase", PROCESS)
def test_a_process_that_exits_is_swept_up_before_it_is_replaced(phase: Phase) -> None:
    assert decide(phase, Signal.EXITED) is Move.CLEAN_UP


@pytest.mark.parametrize("phase", PROCESS)
def test_a_process_whose_device_is_gone_is_stopped(phase: Phase) -> None:
    assert decide(phase, Signal.DEVICES_MISSING) is Move.STOP_UNPLACED


WITHOUT_PROCESS = set(Phase) - {*PROCESS, Phase.STOPPING, Phase.UNPLACED, Phase.RESTING, Phase.OFF}


@pytest.mark.parametrize("phase", sorted(WITHOUT_PROCESS))
def test_without_a_process_a_missing_device_only_unplaces(phase: Phase) -> None:
    assert decide(phase, Signal.DEVICES_MISSING) is Move.UNPLACE


@pytest.mark.parametrize(
    ("phase", "move"),
    [
        (Phase.VERIFYING, Move.BACK_OFF),
        (Phase.MEASURING, Move.BACK_OFF),
        (Phase.SPAWNING, Move.BACK_OFF),
        (Phase.LOADING, Move.STOP_AND_RETRY),
        (Phase.INSPECTING, Move.STOP_AND_RETRY),
        (Phase.TESTING, Move.STOP_AND_RETRY),
    ],
)
def test_a_failed_step_stops_what_runs_and_backs_off(phase: Phase, move: Move) -> None:
    assert decide(phase, Signal.STEP_FAILED) is move


def test_only_phases_with_a_bound_react_to_time() -> None:
    moving = {phase for phase in Phase if isinstance(decide(phase, Signal.DUE), Move)}

    assert moving == {Phase.MEASURING, Phase.LOADING, Phase.INSPECTING, Phase.TESTING, Phase.BACKOFF, Phase.BROKEN}


def test_an_operator_retries_only_what_waits() -> None:
    moving = {phase for phase in Phase if isinstance(decide(phase, Signal.RETRY), Move)}

    assert moving == {Phase.BACKOFF, Phase.BROKEN}


def test_a_stop_that_was_begun_is_never_begun_again() -> None:
    stops = {Move.STOP_AND_RETRY, Move.STOP_UNPLACED, Move.STOP_FOR_GOOD, Move.CLEAN_UP}

    assert not stops & {decide(Phase.STOPPING, signal) for signal in Signal}


@pytest.mark.parametrize("signal", sorted(set(Signal) - {Signal.WAKE, Signal.HALT}))
def test_what_rests_is_begun_by_nothing_but_its_call(signal: Signal) -> None:
    assert isinstance(decide(Phase.RESTING, signal), Ignored)


def test_what_rests_looks_for_its_device_again_when_it_is_woken() -> None:
    assert decide(Phase.RESTING, Signal.WAKE) is Move.WAKE
