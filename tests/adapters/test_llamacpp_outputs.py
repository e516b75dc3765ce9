"""One-shot calls to llama.cpp: what is asked, recorded answers, every cut of them, and what is no answer."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import Decoded, EngineError, Fault, Finished
from adapters.llamacpp import LlamaCpp
from adapters.llamacpp_outputs import OutputsDecoder
from adapters.oneshot import OUTPUTS_BYTES_MAX, Embedding, EmbeddingCall, OneShotCall, RerankCall, Score
from tests.support.llamacpp_transcripts import recorded

TWO = EmbeddingCall(("cat", "kitten"))
RANKED = RerankCall("which", ("first", "second"))
VECTORS = recorded("v1_embeddings_minilm-f16_200.json").body
SCORES = recorded("v1_rerank_tiny-rerank_200.json").body
USAGE = {"prompt_tokens": 4, "total_tokens": 4}


def decoded(call: OneShotCall, *reads: bytes, status: int = 200) -> list[Decoded]:
    under_test = LlamaCpp().outputs_decoder(call, status)
    found = [item for read in reads for item in under_test.feed(read)]
    return found + under_test.eof()


def vectors(*rows: dict[str, Any]) -> bytes:
    return json.dumps({"object": "list", "usage": USAGE, "data": list(rows)}).encode()


def scores(*rows: dict[str, Any]) -> bytes:
    return json.dumps({"object": "list", "usage": USAGE, "results": list(rows)}).encode()


def error_of(found: list[Decoded]) -> EngineError:
    """The one thing that was decoded."""
    (error,) = found
    assert isinstance(error, EngineError)
    return error


# What is asked ---------------------------------------------------------------------------------------------------


@pytest.mark.orch("ORCH-3054")
def test_an_embedding_states_every_parameter() -> None:
    request = LlamaCpp().request_outputs(EmbeddingCall(("a", "\u2028é\n")))

    assert (request.method, request.path) == ("POST", "/v1/embeddings")
    assert json.loads(request.body) == {"input": ["a", "\u2028é\n"], "encoding_format": "float", "embd_normalize": 2}


@pytest.mark.orch("ORCH-3054")
def test_a_rerank_asks_for_every_document() -> None:
    request = LlamaCpp().request_outputs(RerankCall("q", ("a", "b", "c")))

    assert (request.method, request.path) == ("POST", "/v1/rerank")
    assert json.loads(request.body) == {"query": "q", "documents": ["a", "b", "c"], "top_n": 3}


# Recorded answers ------------------------------------------------------------------------------------------------


def test_recorded_vectors() -> None:
    (finished,) = decoded(TWO, VECTORS)

    assert isinstance(finished, Finished)
    assert (finished.reason, finished.tokens_in, finished.tokens_out) == ("stop", 8, 0)
    first, second = finished.outputs
    assert isinstance(first, Embedding)
    assert isinstance(second, Embedding)
    assert (first.index, second.index, len(first.embedding), len(second.embedding)) == (0, 1, 384, 384)
    assert first.embedding[0] == 0.06176942214369774
    assert second.embedding[-1] == 0.08335568755865097


def test_recorded_scores_in_the_order_of_the_documents() -> None:
    (finished,) = decoded(RANKED, SCORES)

    assert isinstance(finished, Finished)
    assert finished.outputs == (Score(0, 0.7976479530334473), Score(1, 2.268446683883667))
    assert (finished.tokens_in, finished.tokens_out) == (21, 0)


@pytest.mark.parametrize(("call", "body"), [(TWO, VECTORS), (RANKED, SCORES)], ids=["vectors", "scores"])
@given(cuts=st.lists(st.integers(0, 20_000), max_size=8))
def test_any_cut_of_an_answer_gives_the_same(call: OneShotCall, body: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})

    assert decoded(call, *(body[start:end] for start, end in pairwise(edges))) == decoded(call, body)


def test_nothing_is_given_before_the_end_and_nothing_after_it() -> None:
    under_test = LlamaCpp().outputs_decoder(RANKED, 200)

    assert under_test.feed(SCORES) == []
    assert len(under_test.eof()) == 1
    assert (under_test.feed(SCORES), under_test.eof()) == ([], [])


# What is no answer -----------------------------------------------------------------------------------------------


NUMBERS = {"index": 0, "embedding": [0.5, 0.5]}
BAD_VECTORS = {
    "nothing": b"",
    "no JSON": b"<html>",
    "bytes": b"\xff\xfe",
    "a number": b"7",
    "another document": b'{"results":[]}',
    "no usage": json.dumps({"data": [NUMBERS, {**NUMBERS, "index": 1}]}).encode(),
    "cut": VECTORS[:-1],
    "more after it": VECTORS + b"{}",
    "none": vectors(),
    "one too few": vectors(NUMBERS),
    "one too many": vectors(NUMBERS, {**NUMBERS, "index": 1}, {**NUMBERS, "index": 2}),
    "one twice": vectors(NUMBERS, NUMBERS),
    "an index beyond": vectors(NUMBERS, {**NUMBERS, "index": 2}),
    "an index below": vectors(NUMBERS, {**NUMBERS, "index": -1}),
    "no index": vectors(NUMBERS, {"embedding": [0.5, 0.5]}),
    "a word as index": vectors(NUMBERS, {**NUMBERS, "index": "1"}),
    "other lengths": vectors(NUMBERS, {"index": 1, "embedding": [0.5]}),
    "no numbers": vectors({"index": 0, "embedding": []}, {"index": 1, "embedding": []}),
    "a null": vectors(NUMBERS, {"index": 1, "embedding": [0.5, None]}),
    "a word": vectors(NUMBERS, {"index": 1, "embedding": [0.5, "0.5"]}),
    "lists of lists": vectors({"index": 0, "embedding": [[0.5]]}, {"index": 1, "embedding": [[0.5]]}),
    "NaN": vectors(NUMBERS, {"index": 1, "embedding": [0.5, float("nan")]}),
    "Infinity": vectors(NUMBERS, {"index": 1, "embedding": [0.5, float("inf")]}),
    "an infinite number": VECTORS.replace(b"0.06176942214369774", b"1e999"),
    "brackets without end": b'{"data":' + b"[" * 200_000,
    "unknown brackets without end": b'{"x":' + b"[" * 200_000,
}


@pytest.mark.parametrize("body", BAD_VECTORS.values(), ids=BAD_VECTORS.keys())
def test_vectors_that_are_none_are_the_engines_fault(body: bytes) -> None:
    error = error_of(decoded(TWO, body))

    assert (error.fault, error.kind) == (Fault.ENGINE, "protocol")


BAD_SCORES = {
    "vectors": VECTORS,
    "one missing": scores({"index": 0, "relevance_score": 1.0}),
    "one twice": scores({"index": 1, "relevance_score": 1.0}, {"index": 1, "relevance_score": 1.0}),
    "no score": scores({"index": 0, "relevance_score": 1.0}, {"index": 1}),
    "NaN": scores({"index": 0, "relevance_score": 1.0}, {"index": 1, "relevance_score": float("nan")}),
    "null": scores({"index": 0, "relevance_score": 1.0}, {"index": 1, "relevance_score": None}),
}


@pytest.mark.parametrize("body", BAD_SCORES.values(), ids=BAD_SCORES.keys())
def test_scores_that_are_none_are_the_engines_fault(body: bytes) -> None:
    error = error_of(decoded(RANKED, body))

    assert (error.fault, error.kind) == (Fault.ENGINE, "protocol")


@given(st.lists(st.binary(max_size=200), max_size=6), st.sampled_from([200, 400, 500, 503]), st.booleans())
def test_no_bytes_raise(reads: list[bytes], status: int, is_embedding: bool) -> None:
    assert error_of(decoded(TWO if is_embedding else RANKED, *reads, status=status)).message


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["index", "embedding"]), inner),
    max_leaves=6,
)


@given(st.lists(_JSON, max_size=3), _JSON)
def test_no_document_raises(rows: list[Any], usage: Any) -> None:
    body = json.dumps({"data": rows, "results": rows, "usage": usage}).encode()

    for call in (TWO, RANKED):
        assert len(decoded(call, body)) == 1


@pytest.mark.parametrize(
    ("name", "fault", "kind"),
    [
        ("embeddings_disabled.txt", Fault.ENGINE, "unsupported"),
        ("rerank_disabled.txt", Fault.ENGINE, "unsupported"),
        ("loading_completion_goodkey.txt", Fault.BUSY, "loading"),
        ("err_wrongtype.txt", Fault.CLIENT, "request"),
    ],
)
def test_recorded_errors(name: str, fault: Fault, kind: str) -> None:
    answer = recorded(name)
    error = error_of(decoded(TWO, answer.body, status=answer.status))

    assert (error.fault, error.kind) == (fault, kind)


def test_an_input_that_does_not_fit_is_the_clients_fault_though_llamacpp_says_500() -> None:
    error = error_of(decoded(TWO, recorded("v1_embeddings_minilm-f16_500.json").body, status=500))

    assert (error.fault, error.kind) == (Fault.CLIENT, "ctx")
    assert error.message == "the input is longer than the context of a slot (602 tokens)"


@pytest.mark.parametrize(
    ("call", "fault", "kind"),
    [
        (TWO, Fault.CLIENT, "outputs"),
        (EmbeddingCall(("one",)), Fault.ENGINE, "overflow"),
        (RANKED, Fault.ENGINE, "overflow"),
    ],
)
def test_an_answer_past_the_bound_is_given_up_there(call: OneShotCall, fault: Fault, kind: str) -> None:
    under_test = OutputsDecoder(call, body_bytes_max=100)

    assert under_test.feed(b" " * 100) == []
    error = error_of(under_test.feed(b" "))
    assert (error.fault, error.kind) == (fault, kind)
    assert (under_test.feed(b" "), under_test.eof()) == ([], [])


def test_the_bound_lets_256_vectors_of_3000_numbers_through() -> None:
    row = json.dumps([0.06176942214369774] * 3000, separators=(",", ":"))
    body = ",".join(f'{{"embedding":{row},"index":{index},"object":"embedding"}}' for index in range(256))
    whole = f'{{"model":"m","object":"list","usage":{{"prompt_tokens":1}},"data":[{body}]}}'.encode()

    (finished,) = decoded(EmbeddingCall(("x",) * 256), whole)

    assert len(whole) <= OUTPUTS_BYTES_MAX
    assert isinstance(finished, Finished)
    assert len(finished.outputs) == 256
