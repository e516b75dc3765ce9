"""What is asked of an engine before and while it serves, in words that hold for every engine.

Each probe opens no process and decides nothing about a pool: it gives what it saw, or raises `ProbeError` with one
sentence. All time bounds are seconds.
"""

import asyncio
from collections.abc import Mapping

from adapters.base import Adapter, BadAnswerError, EngineProps, EngineRequest, Liveness
from supervisor.runtime.engine_http import Answer, EngineHttp, EngineHttpError, ProtocolFaultError

POLL_S = 0.1
HEALTH_TIMEOUT_S = 1.0
PROPS_TIMEOUT_S = 5.0
PROVE_TIMEOUT_S = 2.0
"""Of one question to an engine that was found running; nothing is started before it is answered."""
LOADING_STATUS = 503
TOKENIZE_TIMEOUT_S = 1.0
METRICS_TIMEOUT_S = 5.0
SLOTS_FIRST_LOOK_S = 0.05
SLOTS_LOOK_EVERY_S = 1.2
"""Each answered question keeps llama-server from noticing for another second that a client is gone."""

STRANGER_KEY = "not-the-key-of-this-worker"


class ProbeError(Exception):
    """The engine is not what it should be. One sentence for an operator."""


async def wait_healthy(http: EngineHttp, adapter: Adapter, deadline_s: float, poll_s: float = POLL_S) -> None:
    """Return when the engine calls itself ready. Raises ProbeError after `deadline_s`.

    Nobody listening yet, no answer in time and an engine that loads are all the same here: not yet. An engine that
    died is seen by whoever watches the process.
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + deadline_s
    seen = "it takes no connection"
    while True:
        try:
            answer = await http.request(adapter.request_health(), HEALTH_TIMEOUT_S)
        except ProtocolFaultError as error:
            raise ProbeError(f"what answers on the engine's port is not an engine: {error}") from None
        except EngineHttpError as error:
            seen = str(error)
        else:
            liveness = adapter.read_health(answer.status, answer.body)
            if liveness is Liveness.READY:
                return
            seen = f"it says {liveness.value}"
        if loop.time() + poll_s >= until_s:
            raise ProbeError(f"the engine was not healthy within {deadline_s:g} s: {seen}")
        await asyncio.sleep(poll_s)


async def read_props(http: EngineHttp, adapter: Adapter) -> EngineProps:
    """The engine's own word on itself, and the proof that it is ours. Raises ProbeError.

    Health is public, so a foreign process on the port looks healthy. Ours answers with the worker's key and refuses
    without it; both are asked.
    """
    bodies: list[bytes] = []
    for request in adapter.request_props():
        answer = await _ask(http, request, PROPS_TIMEOUT_S)
        if answer.status in {401, 403}:
            raise ProbeError("a foreign process answers on the engine's port: it does not know the worker's key")
        if answer.status != 200:
            raise ProbeError(f"the engine answered {answer.status} when asked for its properties")
        bodies.append(answer.body)
    await _prove_identity(http, adapter)
    try:
        return adapter.read_props(bodies)
    except BadAnswerError as error:
        raise ProbeError(f"the engine's properties can't be read: {error}") from None


async def prove_key(http: EngineHttp, adapter: Adapter) -> None:
    """Whether the worker's own engine is on its port: it knows its key and no other. Raises ProbeError.

    One that loads its model answers nobody's questions, and proves nothing yet; nor does it serve anybody.
    """
    answer = await _ask(http, adapter.request_props()[0], PROVE_TIMEOUT_S)
    if answer.status in {401, 403}:
        raise ProbeError("a foreign process answers on the engine's port: it does not know the worker's key")
    if answer.status == LOADING_STATUS:
        return
    if answer.status != 200:
        raise ProbeError(f"the engine answered {answer.status} when asked for its properties")
    await _prove_identity(http, adapter, PROVE_TIMEOUT_S)


async def _prove_identity(http: EngineHttp, adapter: Adapter, timeout_s: float = PROPS_TIMEOUT_S) -> None:
    """One question as a stranger. The key was chosen for this one worker and is in nobody else's hands."""
    stranger = http.with_key(STRANGER_KEY)
    try:
        answer = await _ask(stranger, adapter.request_props()[0], timeout_s)
    finally:
        stranger.close()
    if answer.status not in {401, 403}:
        raise ProbeError("a foreign process answers on the engine's port: it takes any key")


async def wait_slot_idle(
    http: EngineHttp,
    adapter: Adapter,
    slot: int | None,
    within_s: float,
    look_every_s: float = SLOTS_LOOK_EVERY_S,
) -> bool:
    """Whether the slot (None: every slot) was seen idle in time. True at once where the engine can't say.

    An engine that is busy may be slow to answer: no answer counts as not idle. Looks are far apart on purpose.
    """
    request = adapter.request_slots()
    if request is None:
        return True
    loop = asyncio.get_running_loop()
    until_s = loop.time() + within_s
    pause_s = SLOTS_FIRST_LOOK_S
    while True:
        left_s = until_s - loop.time()
        if left_s <= 0:
            return False
        await asyncio.sleep(min(pause_s, left_s))
        if await _is_idle(http, adapter, request, slot, max(until_s - loop.time(), SLOTS_FIRST_LOOK_S)):
            return True
        pause_s = look_every_s


async def count_tokens(http: EngineHttp, adapter: Adapter, text: str, timeout_s: float = TOKENIZE_TIMEOUT_S) -> int:
    """Tokens of a prompt as the engine counts them (ORCH-3015). Raises ProbeError."""
    answer = await _ask(http, adapter.request_tokenize(text), timeout_s)
    if answer.status != 200:
        raise ProbeError(f"the engine answered {answer.status} when asked to tokenize")
    try:
        return adapter.read_tokenize(answer.body)
    except BadAnswerError as error:
        raise ProbeError(f"the engine's token count can't be read: {error}") from None


async def read_metrics(http: EngineHttp, adapter: Adapter) -> Mapping[str, float]:
    """The engine's own metrics page, in neutral names. Raises ProbeError."""
    answer = await _ask(http, adapter.request_metrics(), METRICS_TIMEOUT_S)
    if answer.status != 200:
        raise ProbeError(f"the engine answered {answer.status} when asked for its metrics")
    try:
        return adapter.read_metrics(answer.body)
    except BadAnswerError as error:
        raise ProbeError(f"the engine's metrics can't be read: {error}") from None


async def _ask(http: EngineHttp, request: EngineRequest, timeout_s: float) -> Answer:
    try:
        return await http.request(request, timeout_s)
    except EngineHttpError as error:
        raise ProbeError(str(error)) from None


async def _is_idle(
    http: EngineHttp, adapter: Adapter, request: EngineRequest, slot: int | None, timeout_s: float
) -> bool:
    try:
        answer = await http.request(request, min(timeout_s, HEALTH_TIMEOUT_S))
        states = adapter.read_slots(answer.body) if answer.status == 200 else ()
    except (EngineHttpError, BadAnswerError):
        return False
    looked_at = [state for state in states if slot is None or state.slot == slot]
    return bool(looked_at) and not any(state.is_busy for state in looked_at)
