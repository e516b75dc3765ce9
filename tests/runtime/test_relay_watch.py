"""The watchdog under a clock that the test moves: when it fires, how often it is set, and what a pause does."""

import heapq
from collections.abc import Callable

import pytest

from supervisor.runtime.relay_facts import Stall
from supervisor.runtime.relay_watch import SECOND_LOOK_S, Watchdog


class Alarm:
    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self.when = when
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def __lt__(self, other: "Alarm") -> bool:
        return self.when < other.when


class HandClock:
    """Timers that fire while `advance` runs; `set` counts how many were ever set."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.set = 0
        self._alarms: list[Alarm] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Alarm:
        return self.call_at(self.now + delay, callback)

    def call_at(self, when: float, callback: Callable[[], object], /) -> Alarm:
        self.set += 1
        alarm = Alarm(when, callback)
        heapq.heappush(self._alarms, alarm)
        return alarm

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while self._alarms and self._alarms[0].when <= until:
            alarm = heapq.heappop(self._alarms)
            self.now = max(self.now, alarm.when)
            if not alarm.is_cancelled:
                alarm.callback()
        self.now = until

    def pause(self, seconds: float) -> None:
        """The whole process stood still: nothing ran, and the clock went on."""
        self.now += seconds


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def test_silence_is_reported_once_with_its_name(clock: HandClock) -> None:
    stalls: list[Stall] = []
    watch = Watchdog(clock, stalls.append)

    watch.watch(Stall.FIRST_TOKEN, 5.0)
    clock.advance(5.0)
    early = list(stalls)
    clock.advance(100.0)

    assert (early, stalls) == ([], [Stall.FIRST_TOKEN])


def test_touches_cost_no_timer_and_put_the_stall_off(clock: HandClock) -> None:
    stalls: list[Stall] = []
    watch = Watchdog(clock, stalls.append)
    watch.watch(Stall.IDLE, 1.0)

    for _ in range(1000):
        clock.advance(0.01)
        watch.touched_s = clock.time()
    put_off = list(stalls)
    clock.advance(1.0 + 2 * SECOND_LOOK_S)

    assert (put_off, stalls) == ([], [Stall.IDLE])
    assert clock.set < 20


def test_new_bound_replaces_the_old_one(clock: HandClock) -> None:
    stalls: list[Stall] = []
    watch = Watchdog(clock, stalls.append)

    watch.watch(Stall.FIRST_TOKEN, 1.0)
    watch.watch(Stall.IDLE, 10.0)
    clock.advance(9.0)

    assert stalls == []
    clock.advance(2.0)
    assert stalls == [Stall.IDLE]


def test_stopped_watch_says_nothing(clock: HandClock) -> None:
    stalls: list[Stall] = []
    watch = Watchdog(clock, stalls.append)

    watch.watch(Stall.IDLE, 1.0)
    watch.stop()
    clock.advance(10.0)

    assert stalls == []


def test_pause_of_the_whole_process_is_not_the_engines_silence(clock: HandClock) -> None:
    stalls: list[Stall] = []
    watch = Watchdog(clock, stalls.append)
    watch.watch(Stall.IDLE, 1.0)

    clock.pause(30.0)
    clock.advance(0.0)  # the timer is due before the sockets were read
    watch.touched_s = clock.time()  # what had waited in the socket
    clock.advance(0.5)

    assert stalls == []
