"""The one writer of the core: events go in here, one at a time; the effects are performed before the next is taken.

Performing an effect may post further events: they wait their turn. A bug in the core stops the daemon at once: what was
accepted is on disk, and a restart knows more than a state that has broken its own rules.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from supervisor.core.conductor import Conductor
from supervisor.core.effects import Effect
from supervisor.core.events import Event, TimePassed
from supervisor.core.state import State

log = logging.getLogger(__name__)


class CoreLoop:
    """Feeds the conductor. `on_bug` is called once, for an exception out of the core or of a performer."""

    def __init__(
        self,
        conductor: Conductor,
        perform: Callable[[Effect], None],
        on_bug: Callable[[BaseException], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._conductor = conductor
        self._perform = perform
        self._on_bug = on_bug
        self._loop = loop
        self._events: deque[Event] = deque()
        self._is_turning = False
        self._is_broken = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_ms = 0.0

    @property
    def state(self) -> State:
        """For looking at, between events."""
        return self._conductor.state

    def now_ms(self) -> float:
        """The core's clock: monotonic milliseconds."""
        return self._loop.time() * 1000

    def post(self, event: Event) -> None:
        """Give the core an event. Its effects are performed when this returns, unless it was posted by one of them."""
        self._events.append(event)
        if self._is_turning or self._is_broken:
            return
        self._is_turning = True
        try:
            self._turn()
        except Exception as bug:
            self._is_broken = True
            log.critical("the core broke its own rules: the daemon stops", exc_info=bug)
            self._on_bug(bug)
        finally:
            self._is_turning = False

    def _turn(self) -> None:
        while self._events:
            event = self._events.popleft()
            for effect in self._conductor.handle(event, self.now_ms()):
                self._perform(effect)
        self._arm()

    def _arm(self) -> None:
        due_ms = self._conductor.next_due_ms()
        if self._timer is not None:
            if due_ms == self._timer_due_ms:
                return
            self._timer.cancel()
            self._timer = None
        if due_ms is not None:
            self._timer_due_ms = due_ms
            self._timer = self._loop.call_at(due_ms / 1000, self._pass_time)

    def _pass_time(self) -> None:
        self._timer = None
        self.post(TimePassed())

    def close(self) -> None:
        """Take no further events."""
        self._is_broken = True
        if self._timer is not None:
            self._timer.cancel()
