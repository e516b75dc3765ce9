"""Compares two revisions of a pool: the golden prompts, greedily, on both engines, token by token (ORCH-3033).

Gives a count; what follows from it is the core's business. It never fails: where nothing can be compared, `total` is 0
and the detail says why. Prompts of operators are in no log and no answer.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adapters.base import Adapter, CompletionCall, Decoded, EngineError, Finished, StreamDecoder, Token
from supervisor.runtime.engine_http import EngineHttp, EngineHttpError
from supervisor.runtime.probes import ProbeError
from supervisor.runtime.self_test import GREEDY

SEED = 1
ANSWER_S = 60.0


@dataclass(frozen=True, slots=True)
class Engine:
    """One side: how it is spoken to, and its connection."""

    adapter: Adapter
    http: EngineHttp


@dataclass(frozen=True, slots=True)
class Parity:
    """How many prompts were answered alike. `detail` is one sentence where that is not all of them."""

    matched: int
    total: int
    detail: str | None = None


async def compare(old: Engine, new: Engine, prompts: Sequence[str], tokens: int, answer_s: float = ANSWER_S) -> Parity:
    """One prompt after the other, both engines at once: neither ever has more than one of them."""
    matched, detail = 0, None
    for number, prompt in enumerate(prompts, 1):
        asked = [asyncio.ensure_future(continue_greedily(side, prompt, tokens, answer_s)) for side in (old, new)]
        try:
            before, after = await asyncio.gather(*asked)
        except ProbeError as error:
            return Parity(0, 0, f"golden prompt {number} could not be compared: {error}")
        finally:  # one side may be left in the middle of its answer
            for side in asked:
                side.cancel()
        if before == after:
            matched += 1
        elif detail is None:
            equal = next(
                (at for at, (a, b) in enumerate(zip(before, after, strict=False)) if a != b),
                min(len(before), len(after)),
            )
            detail = f"golden prompt {number} differs from token {equal + 1} on"
    return Parity(matched, len(prompts), detail)


async def continue_greedily(side: Engine, prompt: str, tokens: int, answer_s: float) -> tuple[str, ...]:
    """The tokens of one greedy answer. Raises ProbeError."""
    call = CompletionCall(prompt=prompt, max_tokens=tokens, seed=SEED, sampler=GREEDY)
    found: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
    exchange = side.http.stream(side.adapter.request_completion(call), _Gatherer(side.adapter, found))
    try:
        async with asyncio.timeout(answer_s):
            return await found
    except TimeoutError:
        raise ProbeError(f"the engine gave no whole answer within {answer_s:g} s") from None
    finally:
        exchange.abort()


class _Gatherer:
    """A sink that keeps the tokens of an answer."""

    def __init__(self, adapter: Adapter, found: "asyncio.Future[tuple[str, ...]]") -> None:
        self._adapter = adapter
        self._decoder: StreamDecoder | None = None
        self._found = found
        self._tokens: list[str] = []

    def on_status(self, status: int, headers: Mapping[str, str]) -> None:  # noqa: ARG002  (of the protocol)
        self._decoder = self._adapter.decoder(status)

    def on_body(self, data: bytes) -> None:
        if self._decoder is not None:
            self._take(self._decoder.feed(data))

    def on_done(self) -> None:
        if self._decoder is not None:
            self._take(self._decoder.eof())
        self._fail("the engine's answer ended early")

    def on_lost(self, error: EngineHttpError) -> None:
        self._fail(str(error))

    def _take(self, decoded: Sequence[Decoded]) -> None:
        for item in decoded:
            if isinstance(item, Token):
                self._tokens.append(item.text)
            elif isinstance(item, Finished) and not self._found.done():
                self._found.set_result(tuple(self._tokens))
            elif isinstance(item, EngineError):
                self._fail(f"the engine refused it: {item.kind}")

    def _fail(self, text: str) -> None:
        if not self._found.done():
            self._found.set_exception(ProbeError(text))
