"""Virtual time, and the daemon in it: a heap of what will happen, one conductor, and those who perform its effects.

The daemon's loop is copied faithfully: one event at a time, its effects performed before the next; events that are
posted meanwhile wait their turn. Nothing here knows what a fault is.
"""

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.conductor import Conductor
from supervisor.core.invariants import violations
from supervisor.core.plan import HostPlan, PoolPlan
from tests.core.ledger import BrokenPromiseError, Ledger
from tests.core.oracle import Oracle
from tests.sim.story import Story

Act = Callable[[], None]
SPIN_MAX = 1_000


class World:
    """The clock, the dice, and the daemon that lives now. `life` changes with every start and end of a daemon:
    what one began dies with it.
    """

    def __init__(self, seed: int, plans: tuple[PoolPlan, ...], host: HostPlan) -> None:
        self.dice = Random(seed)
        self.now = 0.0
        self.story = Story()
        self.ledger = Ledger()
        self.plans, self.host = plans, host
        self.life = 0
        self.hands: dict[type, Callable[[Any], None]] = {}
        self.events_seen = 0
        self._future: list[tuple[float, int, int | None, Act]] = []
        self._order = 0
        self._posted: deque[ev.Event] = deque()
        self._is_turning = False
        self._spin = 0
        self._core: Conductor | None = None
        self.oracle = Oracle(plans, self.ledger, host)

    # The daemon

    @property
    def core(self) -> Conductor:
        assert self._core is not None, "no daemon runs"
        return self._core

    @property
    def is_up(self) -> bool:
        return self._core is not None

    def start_daemon(self) -> None:
        self.life += 1
        self._core = Conductor(self.plans, self.host)
        self.oracle = Oracle(self.plans, self.ledger, self.host)
        self.story.add(self.now, "##", "a daemon starts")

    def end_daemon(self, how: str) -> None:
        """Whatever it had begun is void from now on: it belongs to a life that is over."""
        self._core = None
        self._posted.clear()
        self.life += 1
        self.story.add(self.now, "##", f"the daemon {how}")

    def post(self, event: ev.Event) -> None:
        """Give the daemon an event, as its loop would."""
        if self._core is None:
            return
        self._posted.append(event)
        if not self._is_turning:
            self._is_turning = True
            try:
                self._turn()
            finally:
                self._is_turning = False

    def _turn(self) -> None:
        while self._posted and self._core is not None:
            event = self._posted.popleft()
            self.events_seen += 1
            self.story.add(self.now, "->", event)
            self.oracle.note_event(event, self.now)
            effects = self._core.handle(event, self.now)
            for effect in effects:
                self.story.add(self.now, "  ", effect)
            self.oracle.note_effects(effects)
            for effect in effects:
                self._perform(effect)
            if self.is_up and (found := violations(self.core.state, self.now)):
                raise BrokenPromiseError("; ".join(found))

    def _perform(self, effect: ef.Effect) -> None:
        hand = self.hands.get(type(effect))
        if hand is not None:
            hand(effect)

    # Time

    def after(self, delay_ms: float, act: Act) -> None:
        """Let the living daemon's world do something later; void if that daemon is gone by then."""
        self._push(delay_ms, self.life, act)

    def fated(self, delay_ms: float, act: Act) -> None:
        """Something that happens whoever lives then."""
        self._push(delay_ms, None, act)

    def _push(self, delay_ms: float, life: int | None, act: Act) -> None:
        self._order += 1
        heappush(self._future, (self.now + delay_ms, self._order, life, act))

    def run_until(self, until_ms: float) -> None:
        """Let everything happen that is due by then, in order."""
        while True:
            due_ms = self._core.next_due_ms() if self._core is not None else None
            next_ms = self._future[0][0] if self._future else None
            if due_ms is not None and (next_ms is None or due_ms <= next_ms):
                if due_ms > until_ms:
                    break
                self._fire(due_ms)
            elif next_ms is not None and next_ms <= until_ms:
                self._happen()
            else:
                break
        self.now = max(self.now, until_ms)

    def _fire(self, due_ms: float) -> None:
        self._spin = self._spin + 1 if due_ms <= self.now else 0
        if self._spin > SPIN_MAX:
            raise BrokenPromiseError("the core asks for the same moment again and again")
        self.now = max(self.now, due_ms)
        self.post(ev.TimePassed())

    def _happen(self) -> None:
        at_ms, _, life, act = heappop(self._future)
        self.now = max(self.now, at_ms)
        if life is None or life == self.life:
            self._spin = 0
            act()

    def jump(self, ms: float) -> None:
        """The machine was paused: the clock is further, and everything that was due comes late."""
        self.story.add(self.now, "##", f"the clock jumps by {ms:.0f} ms")
        self.now += ms
