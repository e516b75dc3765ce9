"""One blocking call in a thread of its own, awaited from the event loop.

Not `asyncio.to_thread`: its pool is joined at exit and shared, so that one call that never returns would hold up the
daemon's end and other calls. A call here that hangs costs one daemon thread. It decides nothing about deadlines: the
caller waits with a time limit (`asyncio.wait` leaves the call running) and may look at the late result.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

POOL_THREADS = 6


class NoThreadError(RuntimeError):
    """The process may not have another thread. One sentence."""


def open_pool() -> ThreadPoolExecutor:
    """For the short calls of `asyncio.to_thread`; all its threads are there, so that no call fails for want of one."""
    pool = ThreadPoolExecutor(POOL_THREADS, thread_name_prefix="pool")
    is_complete = threading.Event()
    with contextlib.suppress(RuntimeError):  # with fewer they are slower; the first one that is missed will say so
        for _ in range(POOL_THREADS):
            pool.submit(is_complete.wait)
    is_complete.set()
    return pool


def call_aside(function: Callable[[], T], *, name: str) -> asyncio.Future[T]:
    """Start `function` in a daemon thread called `name`; the future has its result or its exception.

    Raises:
        NoThreadError: the process may not have another thread.
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

    try:
        threading.Thread(target=work, name=name, daemon=True).start()
    except RuntimeError as error:
        raise NoThreadError(f"the host gives the daemon no further thread ({name})") from error
    return future
