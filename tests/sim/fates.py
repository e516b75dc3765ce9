"""What can become of a worker and of a run, and how likely. The dice are the caller's."""

from dataclasses import dataclass
from enum import StrEnum
from random import Random


class Fate(StrEnum):
    """Of one incarnation of a worker."""

    GOOD = "good"
    WRONG_DIGEST = "wrong digest"
    SPAWN_FAILS = "spawn fails"
    CRASH_AT_LOAD = "crash at load"
    NEVER_HEALTHY = "never healthy"
    TOO_FEW_SLOTS = "too few slots"
    TEST_FAILS = "test fails"
    TEST_HANGS = "test hangs"
    CRASH_LATER = "crash later"
    ROTTEN = "rotten"
    """It becomes Ready, and every run on it ends with an error."""


class End(StrEnum):
    """Of one run."""

    FINISHED = "finished"
    STALL = "stall"
    REFUSED = "refused by the engine"
    ENGINE_ERROR = "engine error"
    CUT = "connection cut"
    CRASH = "engine crash"
    ENDLESS = "endless"
    BUSY = "refused by a busy engine"


_FATES = {
    Fate.GOOD: 60,
    Fate.WRONG_DIGEST: 3,
    Fate.SPAWN_FAILS: 4,
    Fate.CRASH_AT_LOAD: 7,
    Fate.NEVER_HEALTHY: 3,
    Fate.TOO_FEW_SLOTS: 2,
    Fate.TEST_FAILS: 3,
    Fate.TEST_HANGS: 1,
    Fate.CRASH_LATER: 17,
    Fate.ROTTEN: 8,
}
_ENDS = {
    End.FINISHED: 75,
    End.STALL: 5,
    End.REFUSED: 3,
    End.ENGINE_ERROR: 4,
    End.CUT: 5,
    End.CRASH: 5,
    End.ENDLESS: 3,
    End.BUSY: 4,
}


@dataclass(frozen=True)
class WorkerLot:
    """What is drawn for one incarnation. Times are milliseconds."""

    fate: Fate
    load_ms: float
    crash_after_ms: float
    stop_ms: float
    is_sticky: bool
    """Its slots stay busy after a cancel."""


def draw_worker(dice: Random, *, is_stormy: bool) -> WorkerLot:
    fate = dice.choices(list(_FATES), list(_FATES.values()))[0]
    ignores_sigterm = is_stormy and dice.random() < 0.15
    return WorkerLot(
        fate=fate if is_stormy else Fate.GOOD,
        load_ms=dice.uniform(200, 3_000) if dice.random() < 0.8 or not is_stormy else dice.uniform(10_000, 28_000),
        crash_after_ms=dice.uniform(500, 30_000),
        stop_ms=dice.uniform(5_000, 20_000) if ignores_sigterm else dice.uniform(1, 200),
        is_sticky=is_stormy and dice.random() < 0.2,
    )


def draw_end(dice: Random, *, is_stormy: bool) -> End:
    end = dice.choices(list(_ENDS), list(_ENDS.values()))[0]
    return end if is_stormy else End.FINISHED
