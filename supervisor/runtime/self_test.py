"""The self-test a worker passes before it is Ready (ORCH-3049): it works, it can be cancelled, it can be measured.

What "works" means follows from what its pool does: decode, embed, rank. Preload is shown by what comes before: health
and props. A result is a fact; what follows is the core's business.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Generic, TypeVar

from adapters.base import (
    Adapter,
    CompletionCall,
    Decoded,
    EngineError,
    EngineProps,
    EngineRequest,
    Finished,
    StreamDecoder,
    Token,
    Workload,
)
from adapters.oneshot import EmbeddingCall, OneShotCall, RerankCall
from supervisor.runtime.engine_http import EngineHttp, EngineHttpError
from supervisor.runtime.probes import ProbeError, read_metrics, wait_slot_idle

ANSWER_S = 60.0
SLOT_IDLE_S = 5.0
PROMPT = "Once upon a time"
SEED = 1
DECODE_TOKENS = 4
CANCEL_TOKENS_MAX = 4096
PROMPT_ROOM = 64
"""Tokens of a slot's context left to the prompt."""
MANY = 64
"""Texts of the one-shot task that is cancelled."""
CANCEL_AFTER_S = 0.05
"""A one-shot answer shows nothing before its end: so long it is let run, and it may be over by then."""
GREEDY: Mapping[str, float | int] = {
    "temperature": 0.0,
    "top_k": 1,
    "top_p": 1.0,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}


Wanted = TypeVar("Wanted", bound=Token | Finished)


class SelfTestStep(StrEnum):
    """The steps, in their order."""

    MINIMAL_DECODE = "minimal_decode"
    MINIMAL_EMBEDDING = "minimal_embedding"
    MINIMAL_RERANK = "minimal_rerank"
    CANCEL = "cancel"
    TELEMETRY = "telemetry"


_SAMPLES: Mapping[Workload, tuple[SelfTestStep, Callable[[int], OneShotCall]]] = {
    Workload.EMBEDDING: (SelfTestStep.MINIMAL_EMBEDDING, lambda count: EmbeddingCall((PROMPT,) * count)),
    Workload.RERANK: (SelfTestStep.MINIMAL_RERANK, lambda count: RerankCall(PROMPT, (PROMPT,) * count)),
}
"""How each one-shot workload is shown, with so many texts."""

Steps = Sequence[tuple[SelfTestStep, Callable[[], Awaitable[str]]]]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step showed. `detail` is one sentence for an operator."""

    name: SelfTestStep
    passed: bool
    took_ms: float
    detail: str


async def self_test(
    http: EngineHttp,
    adapter: Adapter,
    props: EngineProps,
    *,
    workloads: Collection[Workload] = (Workload.COMPLETION,),
    answer_s: float = ANSWER_S,
    slot_idle_s: float = SLOT_IDLE_S,
    slot: int | None = None,
    see_idle: Callable[[], Awaitable[bool]] | None = None,
) -> tuple[StepResult, ...]:
    """Run the steps; the first one that fails is the last one. Raises nothing but a cancel of its own.

    `workloads` is what the worker's pool does. `answer_s` bounds each answer, `slot_idle_s` the time from the cancel to
    a free slot. A worker that serves is tested in `slot`, where it can be told so, and `see_idle` says whether the
    engine works on nothing but the tasks of others.
    """
    see_idle = see_idle or partial(wait_slot_idle, http, adapter, None, slot_idle_s)
    steps = _plan(http, adapter, props, workloads, answer_s, slot, partial(_see_idle, see_idle, slot_idle_s))
    loop = asyncio.get_running_loop()
    results: list[StepResult] = []
    for name, step in steps:
        begin_s = loop.time()
        try:
            passed, detail = True, await step()
        except (ProbeError, EngineHttpError) as error:
            passed, detail = False, str(error)
        results.append(StepResult(name, passed, (loop.time() - begin_s) * 1000, detail))
        if not passed:
            break
    return tuple(results)


async def find_silence(
    http: EngineHttp,
    adapter: Adapter,
    props: EngineProps,
    workloads: Collection[Workload],
    answer_s: float,
    *,
    slot: int | None = None,
) -> str | None:
    """Ask for the smallest answer of the pool's workload; why none came within `answer_s`, None where one did.

    A completion runs in `slot`, where that is given: any other one may hold the KV of somebody's session.
    """
    name, step = _plan(http, adapter, props, workloads, answer_s, slot, _never)[0]
    try:
        await step()
    except (ProbeError, EngineHttpError) as error:
        return f"{name}: {error}"
    return None


def _plan(
    http: EngineHttp,
    adapter: Adapter,
    props: EngineProps,
    workloads: Collection[Workload],
    answer_s: float,
    slot: int | None,
    see_idle: Callable[[], Awaitable[str]],
) -> Steps:
    """One step for each workload, then a cancel of what lasts longest, then telemetry."""
    steps: list[tuple[SelfTestStep, Callable[[], Awaitable[str]]]] = []
    cancel: Callable[[], Awaitable[str]] | None = None
    if Workload.COMPLETION in workloads:
        max_tokens = min(CANCEL_TOKENS_MAX, max(1, props.ctx_per_slot - PROMPT_ROOM))
        steps.append((SelfTestStep.MINIMAL_DECODE, partial(_decode, http, adapter, answer_s, slot)))
        cancel = partial(_cancel, http, adapter, max_tokens, answer_s, slot, see_idle)
    for workload, (name, sample) in _SAMPLES.items():
        if workload in workloads:
            steps.append((name, partial(_give, http, adapter, sample(1), answer_s)))
            cancel = cancel or partial(_leave, http, adapter, sample(MANY), see_idle)
    assert cancel is not None, "a pool does something"
    return [*steps, (SelfTestStep.CANCEL, cancel), (SelfTestStep.TELEMETRY, partial(_measure, http, adapter))]


async def _decode(http: EngineHttp, adapter: Adapter, answer_s: float, slot: int | None) -> str:
    call = CompletionCall(prompt=PROMPT, max_tokens=DECODE_TOKENS, seed=SEED, sampler=GREEDY, slot=slot)
    end = await _taste(http, adapter.request_completion(call), adapter.decoder, Finished, answer_s)
    if end.tokens_out < 1:
        raise ProbeError("the engine ended a completion without a single token")
    return f"{end.tokens_out} tokens were decoded"


async def _cancel(
    http: EngineHttp,
    adapter: Adapter,
    max_tokens: int,
    answer_s: float,
    slot: int | None,
    see_idle: Callable[[], Awaitable[str]],
) -> str:
    """Close the connection after the first token of a long answer, then see its slot idle."""
    call = CompletionCall(prompt=PROMPT, max_tokens=max_tokens, seed=SEED, sampler=GREEDY, ignore_eos=True, slot=slot)
    await _taste(http, adapter.request_completion(call), adapter.decoder, Token, answer_s)
    return await see_idle()


async def _give(http: EngineHttp, adapter: Adapter, call: OneShotCall, answer_s: float) -> str:
    """One whole answer; its decoder has checked it."""
    decoder = partial(adapter.outputs_decoder, call)
    end = await _taste(http, adapter.request_outputs(call), decoder, Finished, answer_s)
    return f"{len(end.outputs)} output of {end.tokens_in} tokens was given"


async def _leave(http: EngineHttp, adapter: Adapter, call: OneShotCall, see_idle: Callable[[], Awaitable[str]]) -> str:
    """Close the connection soon after a long question, then see every slot idle."""
    found: asyncio.Future[Finished] = asyncio.get_running_loop().create_future()
    taster = _Taster(partial(adapter.outputs_decoder, call), found, Finished)
    exchange = http.stream(adapter.request_outputs(call), taster)
    try:
        await asyncio.wait({found}, timeout=CANCEL_AFTER_S)
    finally:
        exchange.abort()
    if found.done():
        found.result()
    return await see_idle()


async def _never() -> str:
    raise ProbeError("nothing was cancelled")


async def _see_idle(see_idle: Callable[[], Awaitable[bool]], slot_idle_s: float) -> str:
    if not await see_idle():
        raise ProbeError(f"the engine still worked {slot_idle_s:g} s after its client had left")
    return "the slot was free after a cancel"


async def _measure(http: EngineHttp, adapter: Adapter) -> str:
    values = await read_metrics(http, adapter)
    if not values:
        raise ProbeError("the engine's metrics page holds none of the values that are looked for")
    return f"{len(values)} values are read from the engine's metrics page"


async def _taste(
    http: EngineHttp,
    request: EngineRequest,
    decoder: Callable[[int], StreamDecoder],
    wanted: type[Wanted],
    answer_s: float,
) -> Wanted:
    """The first `wanted` of the answer; then the connection is closed, whatever else would follow."""
    found: asyncio.Future[Wanted] = asyncio.get_running_loop().create_future()
    exchange = http.stream(request, _Taster(decoder, found, wanted))
    try:
        async with asyncio.timeout(answer_s):
            return await found
    except TimeoutError:
        raise ProbeError(f"the engine gave no {wanted.__name__.lower()} within {answer_s:g} s") from None
    finally:
        exchange.abort()


class _Taster(Generic[Wanted]):
    """A sink that looks for one thing in an answer."""

    def __init__(
        self, decoder: Callable[[int], StreamDecoder], found: "asyncio.Future[Wanted]", wanted: type[Wanted]
    ) -> None:
        self._make_decoder = decoder
        self._decoder: StreamDecoder | None = None
        self._found = found
        self._wanted = wanted

    def on_status(self, status: int, headers: Mapping[str, str]) -> None:  # noqa: ARG002  (of the protocol)
        self._decoder = self._make_decoder(status)

    def on_body(self, data: bytes) -> None:
        if self._decoder is not None:
            self._look(self._decoder.feed(data))

    def on_done(self) -> None:
        if self._decoder is not None:
            self._look(self._decoder.eof())
        self._fail("the engine's answer ended early")

    def on_lost(self, error: EngineHttpError) -> None:
        self._fail(str(error))

    def _look(self, decoded: Sequence[Decoded]) -> None:
        for item in decoded:
            if isinstance(item, self._wanted) and not self._found.done():
                self._found.set_result(item)
            elif isinstance(item, EngineError):
                self._fail(f"the engine refused what it should do: {item.kind}")

    def _fail(self, text: str) -> None:
        if not self._found.done():
            self._found.set_exception(ProbeError(text))
