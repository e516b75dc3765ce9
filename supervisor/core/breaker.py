"""The breaker of one replica: when its results say that it takes no task for a while. Knows no task and no worker.

    Closed --(too many failures)--> Open --(time is over)--> Half-open --(a run begins)--> Probing
      ^                              ^                          ^                            |
      '------------------------------+--------------------------+------ success, failure, or neither

It opens after `STREAK_MAX` failures in a row, or when more than half of at least `RESULTS_MIN` results in
`WINDOW_MS` are failures. It stays open for `OPEN_FIRST_MS`, each further time twice as long, up to `OPEN_MAX_MS`;
after `FORGIVEN_AFTER_MS` of being closed the next time is a first one again. What is a failure is not said here.

A new process begins with a closed breaker, for the results of the old one say nothing of it and its self-test just
decoded; the doubling stays, or a worker that fails, dies and fails again would be trusted anew at each start.
"""

from collections import deque
from enum import StrEnum
from typing import assert_never

from msgspec import Struct, field

STREAK_MAX = 5
RESULTS_MIN = 20
FAILED_SHARE_MAX = 0.5
WINDOW_MS = 30_000
BUCKET_MS = 1_000
OPEN_FIRST_MS = 30_000
OPEN_MAX_MS = 300_000
FORGIVEN_AFTER_MS = 300_000
PAUSE_MS = 500
"""How long a worker that says it is busy is left alone; twice as long each further time in a row."""
PAUSE_MAX_MS = 8_000
BUSY_IN_ROW_MAX = 20
"""Pauses in a row after which a worker that does nothing and says it is busy is taken for a failing one."""


class Trust(StrEnum):
    """How far a replica is trusted with tasks. These words are shown to operators."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"
    PROBING = "probing"


class Signal(StrEnum):
    """What can happen to a breaker. The probe is the one run that an ejected replica was given."""

    SUCCEEDED = "another run succeeded"
    FAILED = "another run failed"
    BEGAN = "a run began"
    PROBE_SUCCEEDED = "the probe succeeded"
    PROBE_FAILED = "the probe failed"
    PROBE_VOID = "the probe ended and says nothing"
    DUE = "its time is over, or an operator wants a try now"
    RENEWED = "a new process"


class Move(StrEnum):
    """What the breaker does."""

    COUNT_SUCCESS = "count a success"
    COUNT_FAILURE = "count a failure, and open where it is one too many"
    ADMIT_PROBE = "admit one run"
    WATCH_PROBE = "watch that run"
    CLOSE = "close"
    REOPEN = "open again, for longer"
    TRY_AGAIN = "admit another probe"
    RENEW = "begin closed"


class Ignored(Struct, frozen=True):
    """The pair changes nothing, and why."""

    reason: str


Cell = Move | Ignored

_OLD = Ignored("that run began before the breaker opened")
_NO_PROBE = Ignored("no probe is under way")
_NOT_OPEN = Ignored("it waits for nothing")

TABLE: dict[tuple[Trust, Signal], Cell] = {
    (Trust.CLOSED, Signal.SUCCEEDED): Move.COUNT_SUCCESS,
    (Trust.CLOSED, Signal.FAILED): Move.COUNT_FAILURE,
    (Trust.CLOSED, Signal.BEGAN): Ignored("a closed breaker counts ends, not beginnings"),
    (Trust.CLOSED, Signal.PROBE_SUCCEEDED): _NO_PROBE,
    (Trust.CLOSED, Signal.PROBE_FAILED): _NO_PROBE,
    (Trust.CLOSED, Signal.PROBE_VOID): _NO_PROBE,
    (Trust.CLOSED, Signal.DUE): _NOT_OPEN,
    (Trust.CLOSED, Signal.RENEWED): Move.RENEW,
    (Trust.OPEN, Signal.SUCCEEDED): _OLD,
    (Trust.OPEN, Signal.FAILED): _OLD,
    (Trust.OPEN, Signal.BEGAN): Ignored("nothing is given to an ejected replica"),
    (Trust.OPEN, Signal.PROBE_SUCCEEDED): _NO_PROBE,
    (Trust.OPEN, Signal.PROBE_FAILED): _NO_PROBE,
    (Trust.OPEN, Signal.PROBE_VOID): _NO_PROBE,
    (Trust.OPEN, Signal.DUE): Move.ADMIT_PROBE,
    (Trust.OPEN, Signal.RENEWED): Move.RENEW,
    (Trust.HALF_OPEN, Signal.SUCCEEDED): _OLD,
    (Trust.HALF_OPEN, Signal.FAILED): _OLD,
    (Trust.HALF_OPEN, Signal.BEGAN): Move.WATCH_PROBE,
    (Trust.HALF_OPEN, Signal.PROBE_SUCCEEDED): _NO_PROBE,
    (Trust.HALF_OPEN, Signal.PROBE_FAILED): _NO_PROBE,
    (Trust.HALF_OPEN, Signal.PROBE_VOID): _NO_PROBE,
    (Trust.HALF_OPEN, Signal.DUE): _NOT_OPEN,
    (Trust.HALF_OPEN, Signal.RENEWED): Move.RENEW,
    (Trust.PROBING, Signal.SUCCEEDED): _OLD,
    (Trust.PROBING, Signal.FAILED): _OLD,
    (Trust.PROBING, Signal.BEGAN): Ignored("there is one probe, and it is under way"),
    (Trust.PROBING, Signal.PROBE_SUCCEEDED): Move.CLOSE,
    (Trust.PROBING, Signal.PROBE_FAILED): Move.REOPEN,
    (Trust.PROBING, Signal.PROBE_VOID): Move.TRY_AGAIN,
    (Trust.PROBING, Signal.DUE): _NOT_OPEN,
    (Trust.PROBING, Signal.RENEWED): Move.RENEW,
}


class _Bucket(Struct):
    """The results of one second."""

    began_ms: float
    results: int = 0
    failures: int = 0


class Breaker(Struct):
    """The breaker's memory. `due_ms` says when an open one admits a probe; times are monotonic ms.

    `is_paused`: the worker said that it is busy; it takes nothing until `paused_until_ms`. That is no failure.
    `busy_in_row` counts such pauses since it last gave a token.
    """

    trust: Trust = Trust.CLOSED
    streak: int = 0
    openings: int = 0
    due_ms: float | None = None
    closed_since_ms: float = 0.0
    probe: int | None = None
    cause: str | None = None
    is_paused: bool = False
    paused_until_ms: float = 0.0
    busy_in_row: int = 0
    buckets: deque[_Bucket] = field(default_factory=deque)

    @property
    def is_ejecting(self) -> bool:
        """Whether its replica is out of service: nothing can be given to it before `due_ms`."""
        return self.trust is Trust.OPEN

    @property
    def is_taking(self) -> bool:
        """Whether its replica may be given a run now."""
        return not self.is_paused and self.trust in (Trust.CLOSED, Trust.HALF_OPEN)

    def give(self, signal: Signal, now_ms: float, *, cause: str | None = None, run_id: int | None = None) -> bool:
        """Take a signal. Whether the trust changed. `run_id` is the run that began, `cause` why one failed."""
        cell = TABLE[self.trust, signal]
        if isinstance(cell, Ignored):
            return False
        before = self.trust
        self._make(cell, now_ms, cause, run_id)
        return self.trust is not before

    def _make(self, move: Move, now_ms: float, cause: str | None, run_id: int | None) -> None:
        match move:
            case Move.COUNT_SUCCESS:
                self._count(now_ms, is_failure=False)
            case Move.COUNT_FAILURE:
                self._count_failure(now_ms, cause)
            case Move.ADMIT_PROBE | Move.TRY_AGAIN:
                self.trust, self.due_ms, self.probe = Trust.HALF_OPEN, None, None
            case Move.WATCH_PROBE:
                self.trust, self.probe = Trust.PROBING, run_id
            case Move.CLOSE:
                self._close(now_ms)
            case Move.REOPEN:
                self._open(now_ms, cause)
            case Move.RENEW:
                self._close(now_ms)
                self.is_paused, self.busy_in_row = False, 0
            case _:
                assert_never(move)

    def _count_failure(self, now_ms: float, cause: str | None) -> None:
        self._count(now_ms, is_failure=True)
        if self._is_too_much():
            if now_ms - self.closed_since_ms >= FORGIVEN_AFTER_MS:
                self.openings = 0
            self._open(now_ms, cause)

    def pause(self, now_ms: float) -> float:
        """The worker is busy: leave it alone for a moment. Gives when that is over.

        Answers that come during a pause belong to the one that began it.
        """
        if not self.is_paused:
            self.busy_in_row += 1
        pause_ms = min(PAUSE_MS << min(max(self.busy_in_row - 1, 0), 16), PAUSE_MAX_MS)
        self.is_paused, self.paused_until_ms = True, now_ms + pause_ms
        return self.paused_until_ms

    @property
    def is_busy_for_ever(self) -> bool:
        """Whether it said that it is busy more often than a working engine can be believed."""
        return self.busy_in_row >= BUSY_IN_ROW_MAX

    def note_tokens(self) -> None:
        """It works: the next pause is a first one."""
        self.busy_in_row = 0

    def _count(self, now_ms: float, *, is_failure: bool) -> None:
        while self.buckets and self.buckets[0].began_ms <= now_ms - WINDOW_MS:
            self.buckets.popleft()
        if not self.buckets or self.buckets[-1].began_ms <= now_ms - BUCKET_MS:
            self.buckets.append(_Bucket(now_ms))
        self.buckets[-1].results += 1
        self.buckets[-1].failures += is_failure
        self.streak = self.streak + 1 if is_failure else 0

    def _is_too_much(self) -> bool:
        if self.streak >= STREAK_MAX:
            return True
        results = sum(bucket.results for bucket in self.buckets)
        failures = sum(bucket.failures for bucket in self.buckets)
        return results >= RESULTS_MIN and failures > results * FAILED_SHARE_MAX

    def _open(self, now_ms: float, cause: str | None) -> None:
        self.due_ms = now_ms + min(OPEN_FIRST_MS << min(self.openings, 16), OPEN_MAX_MS)
        self.openings += 1
        self.trust, self.cause, self.probe = Trust.OPEN, cause, None

    def _close(self, now_ms: float) -> None:
        self.trust, self.cause, self.probe, self.due_ms = Trust.CLOSED, None, None, None
        self.streak, self.closed_since_ms = 0, now_ms
        self.buckets.clear()
