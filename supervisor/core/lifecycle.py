"""The life of one worker as a total table: (phase, signal) -> move, or ignored with a reason.

    Idle -> Verifying -> Measuring -> Spawning -> Loading -> Inspecting -> Testing -> Ready
      ^        |            |            |           '-----------+------------+----------'
      |        v            v            v                                    v
      '---- Backoff <-------'<-----------'<------------------------------ Stopping -> Off

An engine that outlived its daemon goes from Verifying to Spawning at once: it is adopted, and holds its memory already.
The table decides *which* move; `workers` makes it. What the operator wants (`wanted`) is a field of its own: the table
only knows what was observed. `Unplaced` has no device to run on, `Broken` failed too often, `Off` is stopped for good.
`Resting` makes way for another revision of its pool, without a process, until it is woken: then it is idle again.
"""

from enum import StrEnum

from msgspec import Struct


class Phase(StrEnum):
    """What was observed of a worker. These words are shown to operators."""

    IDLE = "idle"
    UNPLACED = "no-device"
    VERIFYING = "verifying"
    MEASURING = "measuring"
    SPAWNING = "spawning"
    LOADING = "loading"
    INSPECTING = "inspecting"
    TESTING = "testing"
    READY = "ready"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    BROKEN = "broken"
    RESTING = "resting"
    OFF = "off"


class Signal(StrEnum):
    """What can happen to a worker. Reports of steps carry an incarnation; stale ones never reach the table."""

    DEVICES_FOUND = "devices found"
    DEVICES_MISSING = "devices missing"
    MODEL_VERIFIED = "model verified"
    ENGINE_FOUND = "engine found running"
    ROOM_FOUND = "room found"
    ROOM_SHORT = "room short"
    SPAWNED = "spawned"
    HEALTHY = "healthy"
    INSPECTED = "inspected"
    TESTED = "tested"
    STEP_FAILED = "step failed"
    EXITED = "exited"
    STOPPED = "stopped"
    DUE = "due"
    REPLACE = "replace"
    RETRY = "retry"
    REST = "rest"
    WAKE = "wake"
    HALT = "halt"


class Move(StrEnum):
    """What `workers` does about it."""

    PLACE = "a device is there: verify the model, or open the breaker"
    VERIFY = "verify the model"
    MEASURE = "measure the memory that is free"
    AWAIT_ROOM = "wait for memory"
    ADOPT = "adopt the engine that runs"
    SPAWN = "spawn the engine"
    AWAIT_HEALTH = "await its health"
    INSPECT = "read its properties"
    TEST = "test it"
    SERVE = "serve"
    BACK_OFF = "back off"
    STOP_AND_RETRY = "stop it, then back off"
    STOP_UNPLACED = "stop it, the device is gone"
    STOP_FOR_GOOD = "stop it for good"
    CLEAN_UP = "its process is gone: sweep what it left, then back off"
    UNPLACE = "wait for a device"
    AFTER_STOP = "go where the stop was to lead"
    TURN_OFF = "off"
    STOP_TO_REST = "stop it until it is woken"
    REST = "do not start until it is woken"
    WAKE = "look for its device again"
    REROUTE_TO_REST = "let the running stop lead to rest"
    REROUTE_TO_OFF = "let the running stop lead to off"
    REROUTE_TO_UNPLACED = "let the running stop lead to no device"
    REROUTE_TO_RETRY = "the device is back: let the running stop lead to a new start"


class Ignored(Struct, frozen=True):
    """The pair changes nothing, and why."""

    reason: str


ON_THE_WAY = (
    Phase.IDLE,
    Phase.VERIFYING,
    Phase.MEASURING,
    Phase.SPAWNING,
    Phase.LOADING,
    Phase.INSPECTING,
    Phase.TESTING,
)
"""It may be Ready soon."""

_PROCESS = (Phase.SPAWNING, Phase.LOADING, Phase.INSPECTING, Phase.TESTING, Phase.READY)

_OFF = Ignored("stopped for good")
_STOPPING = Ignored("a stop is under way and decides what follows")
_NOT_ASKED = Ignored("not the step that was asked for")
_KNOWN = Ignored("already known")
_NOTHING_DUE = Ignored("this phase has no deadline")
_BUSY = Ignored("already starting or serving")
_NO_WORKER = Ignored("there is no process to replace")
_RESTING = Ignored("it makes way until it is woken")
_WITHOUT_PROCESS = Ignored("there is no process that could exit")

Cell = Move | Ignored


def _row(default: Cell, special: dict[Phase, Cell]) -> dict[Phase, Cell]:
    return {phase: special.get(phase, _OFF if phase is Phase.OFF else default) for phase in Phase}


def _each(phases: tuple[Phase, ...], cell: Cell) -> dict[Phase, Cell]:
    return dict.fromkeys(phases, cell)


_ROWS: dict[Signal, dict[Phase, Cell]] = {
    Signal.DEVICES_FOUND: _row(
        _KNOWN, {Phase.IDLE: Move.PLACE, Phase.UNPLACED: Move.PLACE, Phase.STOPPING: Move.REROUTE_TO_RETRY}
    ),
    Signal.DEVICES_MISSING: _row(
        Move.UNPLACE,
        {
            Phase.UNPLACED: _KNOWN,
            Phase.RESTING: _RESTING,
            Phase.STOPPING: Move.REROUTE_TO_UNPLACED,
            **_each(_PROCESS, Move.STOP_UNPLACED),
        },
    ),
    Signal.MODEL_VERIFIED: _row(_NOT_ASKED, {Phase.VERIFYING: Move.MEASURE}),
    Signal.ENGINE_FOUND: _row(_NOT_ASKED, {Phase.VERIFYING: Move.ADOPT}),
    Signal.ROOM_FOUND: _row(_NOT_ASKED, {Phase.MEASURING: Move.SPAWN}),
    Signal.ROOM_SHORT: _row(_NOT_ASKED, {Phase.MEASURING: Move.AWAIT_ROOM}),
    Signal.SPAWNED: _row(_NOT_ASKED, {Phase.SPAWNING: Move.AWAIT_HEALTH, Phase.STOPPING: _STOPPING}),
    Signal.HEALTHY: _row(_NOT_ASKED, {Phase.LOADING: Move.INSPECT, Phase.STOPPING: _STOPPING}),
    Signal.INSPECTED: _row(_NOT_ASKED, {Phase.INSPECTING: Move.TEST, Phase.STOPPING: _STOPPING}),
    Signal.TESTED: _row(_NOT_ASKED, {Phase.TESTING: Move.SERVE, Phase.STOPPING: _STOPPING}),
    Signal.STEP_FAILED: _row(
        _NOT_ASKED,
        {
            Phase.VERIFYING: Move.BACK_OFF,
            Phase.MEASURING: Move.BACK_OFF,
            Phase.SPAWNING: Move.BACK_OFF,
            Phase.LOADING: Move.STOP_AND_RETRY,
            Phase.INSPECTING: Move.STOP_AND_RETRY,
            Phase.TESTING: Move.STOP_AND_RETRY,
            Phase.STOPPING: _STOPPING,
        },
    ),
    Signal.EXITED: _row(
        _WITHOUT_PROCESS,
        {
            Phase.STOPPING: Ignored("the stop also sweeps the process group; its end counts"),
            **_each(_PROCESS, Move.CLEAN_UP),
        },
    ),
    Signal.STOPPED: _row(Ignored("no stop was asked for"), {Phase.STOPPING: Move.AFTER_STOP}),
    Signal.DUE: _row(
        _NOTHING_DUE,
        {
            Phase.MEASURING: Move.BACK_OFF,
            Phase.LOADING: Move.STOP_AND_RETRY,
            Phase.INSPECTING: Move.STOP_AND_RETRY,
            Phase.TESTING: Move.STOP_AND_RETRY,
            Phase.BACKOFF: Move.VERIFY,
            Phase.BROKEN: Move.VERIFY,
        },
    ),
    Signal.REPLACE: _row(
        _NO_WORKER, {Phase.STOPPING: _STOPPING, **_each(_PROCESS, Move.STOP_AND_RETRY), Phase.SPAWNING: _BUSY}
    ),
    Signal.RETRY: _row(
        _BUSY,
        {
            Phase.IDLE: Ignored("waits for the device inventory"),
            Phase.UNPLACED: Ignored("waits for a device"),
            Phase.RESTING: _RESTING,
            Phase.BACKOFF: Move.VERIFY,
            Phase.BROKEN: Move.VERIFY,
        },
    ),
    Signal.REST: _row(
        Move.REST,
        {Phase.STOPPING: Move.REROUTE_TO_REST, Phase.RESTING: _KNOWN, **_each(_PROCESS, Move.STOP_TO_REST)},
    ),
    Signal.WAKE: _row(Ignored("it does not rest"), {Phase.RESTING: Move.WAKE}),
    Signal.HALT: _row(
        Move.TURN_OFF,
        {Phase.STOPPING: Move.REROUTE_TO_OFF, Phase.OFF: _KNOWN, **_each(_PROCESS, Move.STOP_FOR_GOOD)},
    ),
}

TABLE: dict[tuple[Phase, Signal], Cell] = {
    (phase, signal): cell for signal, row in _ROWS.items() for phase, cell in row.items()
}


def decide(phase: Phase, signal: Signal) -> Cell:
    """The one answer to what a worker in `phase` does about `signal`."""
    return TABLE[phase, signal]
