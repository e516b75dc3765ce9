"""The one way a test waits for something it cannot be told about: ask again until it is so, or fail by name.

Everything else in the tests is awaited directly. Nothing but `until` may sleep.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

POLL_S = 0.005

T = TypeVar("T")


async def until(predicate: Callable[[], T], *, within_s: float = 5.0, what: str = "the condition") -> T:
    """Return the first truthy value of `predicate`, asked every 5 ms; AssertionError after `within_s` seconds.

    The predicate is asked a last time after the deadline, so that a machine that stood still fails no test.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        is_late = loop.time() >= deadline
        value = predicate()
        if value:
            return value
        if is_late:
            raise AssertionError(f"{what} did not come true within {within_s:g} s")
        await asyncio.sleep(POLL_S)


def wait_until(predicate: Callable[[], T | None], *, within_s: float = 10.0, what: str = "the condition") -> T:
    """The same for a test without an event loop."""
    deadline = time.monotonic() + within_s
    while True:
        is_late = time.monotonic() >= deadline
        value = predicate()
        if value:
            return value
        if is_late:
            raise AssertionError(f"{what} did not come true within {within_s:g} s")
        time.sleep(POLL_S)
