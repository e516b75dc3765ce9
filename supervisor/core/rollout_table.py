"""The way of a rollout as a total table: (phase, signal) -> move, or ignored with a reason (ORCH-3031, ORCH-3033).

    Starting ------------------------> (switched)          both fit: the old one serves until the new one can
       | '--> Sharing ---------------> (switched)          a canary
       v
    Draining -> Stopping -> Swapping -> (switched)         they do not fit together
                    '----------'-> Returning -> Waking     the new one fails: the old one comes back by itself

A rollout ends by a switch, or by leaving the old revision where it was. The table decides *which* move; `rollouts`
makes it, and says what is a signal.
"""

from enum import StrEnum

from supervisor.core.lifecycle import Ignored
from supervisor.core.revisions import RolloutPhase as Phase


class RolloutSignal(StrEnum):
    """What can happen to a rollout."""

    READY = "the new worker is ready"
    CANARY_READY = "the canary is ready"
    SHORT = "the old worker holds the memory"
    FAILED = "the new worker cannot start"
    OLD_IDLE = "nothing runs on the old worker"
    OLD_GONE = "the old worker has no process"
    DUE = "the drain's deadline has come"
    BOTH_DOWN = "neither has a process"
    AWAKE = "the old worker is ready, or given up"
    LOST = "the canary cannot serve any more"
    CONDEMNED = "the canary is worse"
    APPROVED = "the canary is as good"
    PROMOTED = "an operator wants the canary"
    ABORTED = "an operator wants none of it"


class RolloutMove(StrEnum):
    """What `rollouts` does about it."""

    SWITCH = "switch"
    SHARE = "give the canary its share"
    MAKE_WAY = "let the old worker drain"
    STOP_OLD = "stop the old worker"
    RESET_RUNS = "end what still runs on it"
    START_ALONE = "start the new worker in its place"
    GIVE_UP = "retire the new worker"
    CALL_BACK = "let the old worker go on"
    GO_BACK = "stop the new worker"
    WAKE_OLD = "start the old worker again"
    END = "the old worker is back"
    ROLL_BACK = "take the canary's share away"


Cell = RolloutMove | Ignored

_TO_COME = Ignored("not in this phase")
_RETURNING = Ignored("it is being undone already")
_NO_CANARY = Ignored("no canary takes a share")
_UNJUDGED = Ignored("only a canary that takes its share is judged")


def _row(default: Cell, special: dict[Phase, Cell]) -> dict[Phase, Cell]:
    return {phase: special.get(phase, default) for phase in Phase}


_ON_ITS_WAY = (Phase.STARTING, Phase.DRAINING, Phase.STOPPING, Phase.SWAPPING)

_ROWS: dict[RolloutSignal, dict[Phase, Cell]] = {
    RolloutSignal.READY: _row(_TO_COME, dict.fromkeys(_ON_ITS_WAY, RolloutMove.SWITCH)),
    RolloutSignal.CANARY_READY: _row(_TO_COME, {Phase.STARTING: RolloutMove.SHARE}),
    RolloutSignal.SHORT: _row(_TO_COME, {Phase.STARTING: RolloutMove.MAKE_WAY}),
    RolloutSignal.FAILED: _row(
        _TO_COME,
        {
            Phase.STARTING: RolloutMove.GIVE_UP,
            Phase.DRAINING: RolloutMove.CALL_BACK,
            Phase.STOPPING: RolloutMove.GO_BACK,
            Phase.SWAPPING: RolloutMove.GO_BACK,
        },
    ),
    RolloutSignal.OLD_IDLE: _row(_TO_COME, {Phase.DRAINING: RolloutMove.STOP_OLD}),
    RolloutSignal.OLD_GONE: _row(_TO_COME, {Phase.STOPPING: RolloutMove.START_ALONE}),
    RolloutSignal.DUE: _row(_TO_COME, {Phase.DRAINING: RolloutMove.RESET_RUNS}),
    RolloutSignal.BOTH_DOWN: _row(_TO_COME, {Phase.RETURNING: RolloutMove.WAKE_OLD}),
    RolloutSignal.AWAKE: _row(_TO_COME, {Phase.WAKING: RolloutMove.END}),
    RolloutSignal.LOST: _row(_NO_CANARY, {Phase.SHARING: RolloutMove.ROLL_BACK}),
    RolloutSignal.CONDEMNED: _row(_UNJUDGED, {Phase.SHARING: RolloutMove.ROLL_BACK}),
    RolloutSignal.APPROVED: _row(_UNJUDGED, {Phase.SHARING: RolloutMove.SWITCH}),
    RolloutSignal.PROMOTED: _row(_NO_CANARY, {Phase.SHARING: RolloutMove.SWITCH}),
    RolloutSignal.ABORTED: _row(
        _RETURNING,
        {
            Phase.STARTING: RolloutMove.GIVE_UP,
            Phase.DRAINING: RolloutMove.CALL_BACK,
            Phase.STOPPING: RolloutMove.GO_BACK,
            Phase.SWAPPING: RolloutMove.GO_BACK,
            Phase.SHARING: RolloutMove.ROLL_BACK,
        },
    ),
}

TABLE: dict[tuple[Phase, RolloutSignal], Cell] = {
    (phase, signal): cell for signal, row in _ROWS.items() for phase, cell in row.items()
}


def decide(phase: Phase, signal: RolloutSignal) -> Cell:
    """The one answer to what a rollout in `phase` does about `signal`."""
    return TABLE[phase, signal]
