"""Embedding and rerank on bare engines, launched and read by the adapter: the true llama-server and our launcher's."""

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.base import EngineError, Fault, Workload
from adapters.llamacpp import LlamaCpp
from adapters.llamacpp_launch import plan_launch
from adapters.oneshot import Embedding, EmbeddingCall, Score
from tests.adapters.builders import launch
from tests.adapters.oneshot import answered
from tests.support.llama_process import Process, free_port
from tests.support.pools import REAL_ENGINE
from tests.support.tiny_bert_gguf import make_tiny_embedder, make_tiny_ranker
from tools.build_llama_server import find_built

ADAPTER = LlamaCpp()
CTX = 256


@pytest.fixture(
    params=[
        pytest.param("llama-server", marks=pytest.mark.fidelity),
        pytest.param("xllamacpp", marks=pytest.mark.engines),
    ]
)
def words(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The words that start the engine, without its arguments."""
    if request.param == "xllamacpp":
        pytest.importorskip("xllamacpp", reason="the extra `demo` is not installed")
        return (sys.executable, REAL_ENGINE)
    binary = find_built()
    if binary is None:
        pytest.skip("llama-server is not built; run: make engines-llamacpp")
    return (str(binary),)


def started(words: tuple[str, ...], model: Path, workload: Workload) -> Process:
    """The engine by the adapter's own plan; the caller enters it."""
    spec = launch(ctx=CTX, threads=1, simulated=True, workloads=frozenset({workload}))
    plan = plan_launch(replace(spec, model_path=str(model), port=free_port()))
    port = int(plan.argv[plan.argv.index("--port") + 1])
    return Process(replace(plan, argv=(*words, *plan.argv[1:])), port, model.parent)


@pytest.fixture
def embedder(words: tuple[str, ...], tmp_path: Path) -> Iterator[Process]:
    """Ready to embed."""
    with started(words, make_tiny_embedder(tmp_path / "m.gguf"), Workload.EMBEDDING) as engine:
        engine.wait_ready()
        yield engine


@pytest.fixture
def ranker(words: tuple[str, ...], tmp_path: Path) -> Iterator[Process]:
    """Ready to rank."""
    with started(words, make_tiny_ranker(tmp_path / "m.gguf"), Workload.RERANK) as engine:
        engine.wait_ready()
        yield engine


@pytest.mark.orch("ORCH-3054")
def test_vectors_have_length_one_and_follow_from_the_text(embedder: Process) -> None:
    finished = answered(embedder, ADAPTER, ["a cat", "a dog", "a cat"])

    rows = [output.embedding for output in finished.outputs if isinstance(output, Embedding)]
    assert [len(row) for row in rows] == [64] * 3
    assert all(math.isclose(math.hypot(*row), 1, rel_tol=1e-6) for row in rows)
    assert rows[0] == rows[2] != rows[1]
    assert finished.tokens_in == 3 * (4 + 2)


@pytest.mark.orch("ORCH-3045")
def test_a_vector_does_not_depend_on_its_neighbours(embedder: Process) -> None:
    alone = answered(embedder, ADAPTER, ["text 7"])
    among = answered(embedder, ADAPTER, [f"text {number}" for number in range(32)])

    assert isinstance(among.outputs[7], Embedding)
    assert isinstance(alone.outputs[0], Embedding)
    assert among.outputs[7].embedding == alone.outputs[0].embedding


@pytest.mark.orch("ORCH-3015", "ORCH-3054")
def test_an_input_of_the_whole_context_is_taken_and_one_token_more_is_the_clients_fault(embedder: Process) -> None:
    call = EmbeddingCall(["a" * (CTX - 1)])
    fits = answered(embedder, ADAPTER, ["a" * (CTX - 2)])
    status, body = embedder.ask(ADAPTER.request_outputs(call))
    decoder = ADAPTER.outputs_decoder(call, status)

    (error,) = decoder.feed(body) + decoder.eof()

    assert fits.tokens_in == CTX
    assert isinstance(error, EngineError)
    assert (error.fault, error.kind) == (Fault.CLIENT, "ctx")


@pytest.mark.orch("ORCH-3054")
def test_scores_come_in_the_order_of_the_documents(ranker: Process) -> None:
    documents = [f"document {number}" for number in range(8)]
    forwards = answered(ranker, ADAPTER, documents, query="which")
    backwards = answered(ranker, ADAPTER, documents[::-1], query="which")

    scores = [output.score for output in forwards.outputs if isinstance(output, Score)]
    assert [output.index for output in forwards.outputs] == list(range(8))
    assert scores == [output.score for output in backwards.outputs if isinstance(output, Score)][::-1]
    assert len(set(scores)) == 8
