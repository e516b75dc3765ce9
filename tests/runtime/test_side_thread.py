"""One blocking call in a thread of its own."""

import asyncio
import threading

import pytest

from supervisor.runtime.side_thread import call_aside
from tests.support.waiting import until

BOTH_LOOPS = True


async def test_the_loop_runs_while_the_call_blocks() -> None:
    blocked = threading.Event()
    call = call_aside(blocked.wait, name="blocked")
    names = {thread.name for thread in threading.enumerate() if thread.daemon}
    blocked.set()  # reached only because the call did not block the loop

    assert await call is True
    assert "blocked" in names


async def test_an_exception_reaches_who_waits() -> None:
    with pytest.raises(ZeroDivisionError):
        await call_aside(lambda: 1 / 0, name="failing")


async def test_a_result_that_nobody_wants_any_more_is_dropped() -> None:
    blocked = threading.Event()
    call = call_aside(blocked.wait, name="unwanted")
    call.cancel()
    blocked.set()
    await until(lambda: "unwanted" not in {thread.name for thread in threading.enumerate()})

    assert call.cancelled()


def test_a_call_that_outlives_its_loop_harms_nobody() -> None:
    blocked = threading.Event()

    async def leave() -> None:
        call_aside(blocked.wait, name="outliving")

    asyncio.run(leave())
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "outliving"]
    blocked.set()
    thread.join(timeout=20)

    assert not thread.is_alive()
