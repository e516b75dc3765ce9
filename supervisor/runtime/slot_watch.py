"""Sees aborted runs leave their worker: polls its slots until no more are busy than tasks run."""

import asyncio
from collections.abc import Callable

from adapters.base import Adapter, BadAnswerError
from supervisor.runtime.engine_http import EngineHttp, EngineHttpError
from supervisor.runtime.probes import HEALTH_TIMEOUT_S, SLOTS_FIRST_LOOK_S, SLOTS_LOOK_EVERY_S


async def wait_busy_at_most(http: EngineHttp, adapter: Adapter, busy_max: Callable[[], int], within_s: float) -> bool:
    """Whether the engine was seen with no more busy slots than `busy_max()` in time. True where it cannot say.

    Looks are far apart on purpose: each answer keeps llama-server from noticing for a second that a client is gone.
    """
    if adapter.request_slots() is None:
        return True
    loop = asyncio.get_running_loop()
    until_s = loop.time() + within_s
    pause_s = SLOTS_FIRST_LOOK_S
    while (left_s := until_s - loop.time()) > 0:
        await asyncio.sleep(min(pause_s, left_s))
        busy = await count_busy(http, adapter)
        if busy is not None and busy <= busy_max():
            return True
        pause_s = SLOTS_LOOK_EVERY_S
    return False


async def count_busy(http: EngineHttp, adapter: Adapter) -> int | None:
    """Busy slots as the engine says; None where it did not answer in a way that counts."""
    request = adapter.request_slots()
    if request is None:
        return None
    try:
        answer = await http.request(request, HEALTH_TIMEOUT_S)
        states = adapter.read_slots(answer.body) if answer.status == 200 else ()
    except (EngineHttpError, BadAnswerError):
        return None
    return sum(state.is_busy for state in states) if states else None
