"""When a worker that failed is started again (ORCH-3053): pure functions over its history.

Delays are 1, 2, 4 ... 60 s, each spread by +-20 % with a jitter that follows from the pool and the attempt, so that the
same history always gives the same answer. More than `STARTS_MAX` starts in `STARTS_WINDOW_MS` open the breaker.
"""

from zlib import crc32

from msgspec import Struct

DELAY_FIRST_MS = 1_000
DELAY_MAX_MS = 60_000
JITTER = 0.2
STARTS_MAX = 5
STARTS_WINDOW_MS = 300_000
STABLE_MS = 120_000
HALF_OPEN_MS = 600_000


class History(Struct, frozen=True):
    """Failures in a row since the worker was last stable, and the monotonic times (ms) of its recent starts.

    `is_open`: the breaker opened, and the worker has not been stable since; its next failure opens it again.
    """

    streak: int = 0
    starts: tuple[float, ...] = ()
    is_open: bool = False


class Again(Struct, frozen=True):
    """Start again at `at_ms`."""

    at_ms: float


class BreakerOpen(Struct, frozen=True):
    """Too many starts. One probe at `half_open_at_ms`, or when an operator says so."""

    half_open_at_ms: float


def jitter(seed: str) -> float:
    """A number in [-1, 1] that follows from `seed` alone."""
    return crc32(seed.encode()) / 0x7FFF_FFFF - 1


def delay_ms(streak: int, seed: str) -> float:
    """The wait before start number `streak` + 1, in milliseconds; `streak` counts from 1."""
    base = min(float(DELAY_FIRST_MS << min(streak - 1, 16)), DELAY_MAX_MS)
    return base * (1 + JITTER * jitter(f"{seed}:{streak}"))


def note_start(history: History, now_ms: float) -> History:
    """The history after one more start of a process."""
    recent = tuple(at for at in history.starts if at > now_ms - STARTS_WINDOW_MS)
    return History(history.streak, (*recent, now_ms), history.is_open)


def note_failure(history: History) -> History:
    """The history after one more failure."""
    return History(history.streak + 1, history.starts, history.is_open)


def note_open(history: History) -> History:
    """The history once the breaker is open."""
    return History(history.streak, history.starts, is_open=True)


def note_stable(history: History) -> History:
    """The history after `STABLE_MS` of being Ready: old failures are forgiven, starts still count in their window."""
    return History(starts=history.starts)


def plan_restart(history: History, now_ms: float, seed: str) -> Again | BreakerOpen:
    """What follows a failure that is already in `history`."""
    at_ms = now_ms + delay_ms(history.streak, seed)
    if history.is_open or _has_started_too_often(history, at_ms):
        return BreakerOpen(now_ms + HALF_OPEN_MS)
    return Again(at_ms)


def plan_return(history: History, now_ms: float) -> Again | BreakerOpen:
    """What follows when a worker that waited for its device has one again."""
    return BreakerOpen(now_ms + HALF_OPEN_MS) if _has_started_too_often(history, now_ms) else Again(now_ms)


def _has_started_too_often(history: History, at_ms: float) -> bool:
    return sum(1 for at in history.starts if at > at_ms - STARTS_WINDOW_MS) >= STARTS_MAX
