"""Two engines are compared by the same prompts, and none is left with a prompt that nobody waits for any more."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from adapters.llamacpp import LlamaCpp
from supervisor.runtime.engine_http import EngineHttp
from supervisor.runtime.golden import Engine, Parity, compare
from tests.runtime.scripted_engine import HEAD, LAST_CHUNK, Peer, Script, answer, chunk, scripted_engine

TOKENS = 8


@asynccontextmanager
async def engine_of(script: Script) -> AsyncIterator[Engine]:
    async with scripted_engine(script) as engine:
        http = EngineHttp("127.0.0.1", engine.port, None)
        try:
            yield Engine(LlamaCpp(), http)
        finally:
            http.close()


def saying(*tokens: str) -> Script:
    """Answers every prompt with these tokens."""
    events = [{"content": token, "stop": False} for token in tokens]
    last = {"content": "", "stop": True, "stop_type": "limit", "tokens_predicted": len(tokens), "tokens_evaluated": 1}
    body = [chunk(f"data: {json.dumps(event)}\n\n".encode()) for event in (*events, last)]

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(HEAD, *body, LAST_CHUNK)

    return script


async def compared(old: Script, new: Script, *prompts: str) -> Parity:
    async with engine_of(old) as before, engine_of(new) as after:
        return await compare(before, after, prompts, TOKENS)


@pytest.mark.orch("ORCH-3033")
async def test_equal_answers_are_counted_and_the_first_other_token_is_named() -> None:
    alike = await compared(saying("a", "b"), saying("a", "b"), "one", "two")
    other = await compared(saying("a", "b"), saying("a", "c"), "one", "two")
    shorter = await compared(saying("a", "b"), saying("a"), "one")

    assert alike == Parity(2, 2)
    assert other == Parity(0, 2, "golden prompt 1 differs from token 2 on")
    assert shorter == Parity(0, 1, "golden prompt 1 differs from token 2 on")


@pytest.mark.orch("ORCH-3033")
async def test_an_engine_whose_partner_fails_is_let_go_at_once() -> None:
    gone = asyncio.Event()
    has_begun = asyncio.Event()

    async def never_ends(peer: Peer) -> None:
        await peer.request()
        has_begun.set()
        await peer.send(HEAD)
        await peer.wait_gone()
        gone.set()

    async def refuses(peer: Peer) -> None:
        await peer.request()
        await has_begun.wait()
        await peer.send(answer(b"{}", "500 Internal Server Error"))

    async with engine_of(never_ends) as old, engine_of(refuses) as new:
        parity = await compare(old, new, ["one"], TOKENS)
        await asyncio.wait_for(gone.wait(), 5)

    assert (parity.matched, parity.total) == (0, 0)
    assert "golden prompt 1 could not be compared" in str(parity.detail)
