"""Counting the tokens of a task's longest piece: which pieces the engine is asked about, and when it is given up."""

import pytest

from adapters.llamacpp import LlamaCpp
from supervisor.core.tasks import Task
from supervisor.runtime.engine_http import EngineHttp
from supervisor.runtime.probes import ProbeError
from supervisor.runtime.token_count import count_longest
from supervisor.wire.codes import Workload
from tests.runtime.llama_peer import KEY, LlamaPeer, llama_peer
from tests.runtime.submitted import a_task

WORDS = "a b c d e f g h i j"
"""19 bytes; the engine counts its words and one token more."""


async def counted(peer: LlamaPeer, task: Task, *, ctx: int = 16, within_s: float = 5.0) -> int:
    async with llama_peer(peer):
        http = EngineHttp("127.0.0.1", peer.port, KEY)
        try:
            return await count_longest(http, LlamaCpp(), task, ctx, within_s)
        finally:
            http.close()


@pytest.mark.orch("ORCH-3015")
async def test_a_prompt_is_counted_as_it_is() -> None:
    peer = LlamaPeer()

    assert await counted(peer, a_task(Workload.COMPLETION)) == 2
    assert peer.tokenized == ["été"]


@pytest.mark.orch("ORCH-3015")
async def test_the_longest_input_is_that_with_the_most_tokens_and_not_the_most_bytes() -> None:
    peer = LlamaPeer()
    task = a_task(Workload.EMBEDDING, "oneverylongwordandnothingelse", "short", WORDS)

    assert await counted(peer, task) == 11
    assert peer.tokenized == ["oneverylongwordandnothingelse", WORDS]


@pytest.mark.orch("ORCH-3015")
async def test_what_can_have_no_more_tokens_is_not_counted() -> None:
    peer = LlamaPeer()
    task = a_task(Workload.EMBEDDING, WORDS * 4, *["x" * 30] * 200)

    assert await counted(peer, task, ctx=8) == 38
    assert peer.tokenized == [WORDS * 4]


@pytest.mark.orch("ORCH-3015")
async def test_the_tasks_own_ctx_bounds_the_room() -> None:
    peer = LlamaPeer()
    task = a_task(Workload.EMBEDDING, "oneverylongwordandnothingelse", WORDS, ctx=16)

    assert await counted(peer, task, ctx=4096) == 11


async def test_a_document_is_counted_with_its_query() -> None:
    peer = LlamaPeer()

    assert await counted(peer, a_task(Workload.RERANK, "what is it", "no idea", "x"), ctx=64) == 6
    assert peer.tokenized == ["what is it\nno idea"]


async def test_an_engine_that_counts_too_slowly_is_given_up() -> None:
    with pytest.raises(ProbeError, match="more than 0 s"):
        await counted(LlamaPeer(), a_task(Workload.EMBEDDING, "a", "b"), within_s=0.0)
