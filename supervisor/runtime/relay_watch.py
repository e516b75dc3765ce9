"""The watchdog of one run: one timer that is set again only when it fires, never for a token."""

from collections.abc import Callable
from typing import Protocol

from supervisor.runtime.relay_facts import Stall

SECOND_LOOK_S = 0.02


class Timer(Protocol):
    """A callback to come."""

    def cancel(self) -> None:
        """It does not come."""


class Timers(Protocol):
    """The part of an event loop that is used: monotonic seconds, and callbacks at a time."""

    def time(self) -> float:
        """Now."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        """After `delay` seconds."""

    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer:
        """At `when`."""


class Watchdog:
    """Reports at most one stall. `touched_s` is the loop time of the last token: the owner writes it, nothing more."""

    __slots__ = ("_bound_s", "_is_second_look", "_loop", "_on_stall", "_timer", "_which", "touched_s")

    def __init__(self, loop: Timers, on_stall: Callable[[Stall], None]) -> None:
        self._loop = loop
        self._on_stall = on_stall
        self._timer: Timer | None = None
        self._which = Stall.FIRST_TOKEN
        self._bound_s = 0.0
        self._is_second_look = False
        self.touched_s = 0.0

    def watch(self, which: Stall, bound_s: float) -> None:
        """From now on at most `bound_s` may pass after each touch. Replaces what was watched before."""
        self.stop()
        self._which, self._bound_s, self._is_second_look = which, bound_s, False
        self.touched_s = self._loop.time()
        self._timer = self._loop.call_later(bound_s, self._look)

    def stop(self) -> None:
        """Nothing is reported any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        due_s = self.touched_s + self._bound_s
        if self._loop.time() < due_s:
            self._is_second_look = False
            self._timer = self._loop.call_at(due_s, self._look)
        elif not self._is_second_look:
            # A daemon that was stopped itself finds its timers due before it has read what waits in its sockets.
            self._is_second_look = True
            self._timer = self._loop.call_later(SECOND_LOOK_S, self._look)
        else:
            self._timer = None
            self._on_stall(self._which)
