"""NVML with a deadline: looks at the GPUs, and listens to their events.

NVML can block for many seconds when a GPU is in trouble, and no call of it can be interrupted. So each look runs in a
side thread (one at a time) and is given up after `deadline_s`; the thread is left behind and, while `stuck_max` of
them are, NVML is not asked again at all. After any failure NVML is shut down and initialised anew by the next look, so
that a reloaded driver or a re-enumerated GPU needs no restart of the daemon; the caller's interval is the backoff.
It never resets a GPU and never changes one of its settings.
"""

import asyncio
import threading
from collections.abc import Callable

from supervisor.runtime.gpu_events import GpuEvent
from supervisor.runtime.gpus import GpuTrouble, Inventory
from supervisor.runtime.gpus_nvml_events import NvmlListener
from supervisor.runtime.gpus_nvml_session import NvmlSession
from supervisor.runtime.side_thread import NoThreadError, call_aside

DEADLINE_S = 2.0
STUCK_MAX = 3


class NvmlReader:
    """A `GpuSource` over the real NVML. One per process (NVML's state is the process's), used from one event loop."""

    def __init__(self, *, deadline_s: float = DEADLINE_S, stuck_max: int = STUCK_MAX) -> None:
        self._deadline_s = deadline_s
        self._stuck_max = stuck_max
        self._stuck = 0
        self._turn = asyncio.Lock()
        self._session = NvmlSession()
        self._listener: NvmlListener | None = None

    async def inventory(self) -> Inventory:
        """Look at all GPUs; within `deadline_s` of its turn there is an answer, if only that there is none."""
        async with self._turn:
            if self._stuck >= self._stuck_max:
                return _silent(f"NVML is left alone until one of {self._stuck} calls that hang in it comes back")
            is_late = threading.Event()
            try:
                look = call_aside(lambda: self._session.look(is_late), name="nvml")
            except NoThreadError as error:
                return Inventory(kind=GpuTrouble.UNKNOWN, cause=f"NVML could not be asked: {error}")
            await asyncio.wait({look}, timeout=self._deadline_s)
            if look.done():
                return look.result()
            is_late.set()
            self._leave_behind(look)
            return _silent(f"NVML did not answer within {self._deadline_s:g} s")

    def listen(self, tell: Callable[[GpuEvent], None]) -> None:
        """Tell of every event of a GPU, on the event loop, until closed."""
        loop = asyncio.get_running_loop()

        def tell_on_loop(event: GpuEvent) -> None:
            loop.call_soon_threadsafe(tell, event)

        self._listener = NvmlListener(self._session, tell_on_loop)
        self._listener.start()

    def renew(self) -> None:
        """Start NVML anew before the next look."""
        self._session.wants_renewal = True

    async def close(self) -> None:
        """Shut NVML down, unless a call hangs in it; waits `deadline_s` at most."""
        if self._listener is not None:
            self._listener.close()
        async with self._turn:
            if not self._stuck:
                await asyncio.wait({call_aside(self._session.shut_down, name="nvml")}, timeout=self._deadline_s)

    def _leave_behind(self, look: asyncio.Future[Inventory]) -> None:
        self._stuck += 1

        def came_back(late: asyncio.Future[Inventory]) -> None:
            self._stuck -= 1
            if not late.cancelled():
                late.exception()  # seen, so that asyncio does not complain; the result is too old to be of use

        look.add_done_callback(came_back)


def _silent(cause: str) -> Inventory:
    return Inventory(kind=GpuTrouble.TIMEOUT, cause=cause)
