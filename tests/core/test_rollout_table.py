"""The table of a rollout: total, reachable, every move made; only a switch and an undoing end it."""

import pytest

from supervisor.core.revisions import RolloutPhase as Phase
from supervisor.core.rollout_table import TABLE, RolloutMove, RolloutSignal, decide
from supervisor.core.rollouts import _MOVES

pytestmark = pytest.mark.orch("ORCH-3031")


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("signal", RolloutSignal)
def test_every_pair_is_decided(phase: Phase, signal: RolloutSignal) -> None:
    cell = decide(phase, signal)

    assert isinstance(cell, RolloutMove) or cell.reason


def test_every_move_is_in_the_table_and_can_be_made() -> None:
    assert {cell for cell in TABLE.values() if isinstance(cell, RolloutMove)} == set(RolloutMove) == set(_MOVES)


@pytest.mark.parametrize("phase", sorted(set(Phase) - {Phase.RETURNING, Phase.WAKING}))
def test_an_operator_can_undo_every_phase_that_is_not_an_undoing(phase: Phase) -> None:
    assert isinstance(decide(phase, RolloutSignal.ABORTED), RolloutMove)


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.DRAINING, Phase.STOPPING, Phase.SWAPPING])
def test_a_worker_that_is_ready_takes_over_however_far_the_old_one_is(phase: Phase) -> None:
    assert decide(phase, RolloutSignal.READY) is RolloutMove.SWITCH


@pytest.mark.parametrize("signal", [RolloutSignal.CONDEMNED, RolloutSignal.LOST, RolloutSignal.ABORTED])
def test_a_canary_that_goes_gives_back_its_share(signal: RolloutSignal) -> None:
    assert decide(Phase.SHARING, signal) is RolloutMove.ROLL_BACK
