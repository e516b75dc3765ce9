"""One blocking call in a thread of its own, awaited from the event loop.

Not `asyncio.to_thread`: its pool is joined at exit and shared, so that one call that never returns would hold up the
daemon's end and other calls. A call here that hangs costs one daemon thread. It decides nothing about deadlines: the
caller waits with a time limit (`asyncio.wait` leaves the call running) and may look at the late result.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def call_aside(function: Callable[[], T], *, name: str) -> asyncio.Future[T]:
    """Start `function` in a daemon thread called `name`; the future has its result or its exception.

    Raises:
        RuntimeError: the process may not have another thread.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]  # no error means that the result is a T
        else:
            future.set_exception(error)

    def work() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = function()
        except BaseException as caught:  # noqa: BLE001  (handed over whole to whoever awaits the future)
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name=name, daemon=True).start()
    return future
