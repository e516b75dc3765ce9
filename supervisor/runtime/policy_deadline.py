"""A deadline in wall time for work that holds its thread: another thread interrupts it. Decides nothing else."""

from collections.abc import Callable
from threading import Lock, Semaphore, Thread
from types import TracebackType


class Deadline:
    """`with deadline:` around the work; `interrupt` is called from another thread where it takes too long.

    One thread waits for the next round all the time: to start a timer for each would cost more than the work.
    """

    def __init__(self, interrupt: Callable[[], object], within_s: float) -> None:
        self._interrupt = interrupt
        self._within_s = within_s
        self._began = Semaphore(0)
        self._over = Lock()
        self._seen = Semaphore(0)
        self._is_closed = False
        self._over.acquire()
        self._thread = Thread(target=self._watch, name="policy-deadline", daemon=True)
        self._thread.start()

    def __enter__(self) -> None:
        self._began.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.release()
        self._seen.acquire()

    def close(self) -> None:
        """End the thread. Not from within a round."""
        self._is_closed = True
        self._began.release()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self._began.acquire()
            if self._is_closed:
                return
            if not self._over.acquire(timeout=self._within_s):
                self._interrupt()
                self._over.acquire()
            self._seen.release()
