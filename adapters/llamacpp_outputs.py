"""Reads the one-shot answers of llama.cpp, sans I/O: `/v1/embeddings` and `/v1/rerank` (builds 11434 to 11549).

Such an answer is one JSON document, judged when it is complete. Decides what counts as an answer: one output for each
text that was sent, all numbers finite, all vectors of one length. It must never raise, whatever the engine sends.
"""

from collections.abc import Sequence

import msgspec

from adapters.base import Decoded, EngineError, Fault, Finished
from adapters.llamacpp_stream import NOT_JSON
from adapters.oneshot import OUTPUTS_BYTES_MAX, Embedding, EmbeddingCall, OneShotCall, Outputs, Score, asked_for


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int


class _Embeddings(msgspec.Struct):
    data: list[Embedding]
    usage: _Usage


class _Result(msgspec.Struct, gc=False):
    index: int
    relevance_score: float


class _Ranking(msgspec.Struct):
    results: list[_Result]
    usage: _Usage


_decode_embeddings = msgspec.json.Decoder(_Embeddings).decode
_decode_ranking = msgspec.json.Decoder(_Ranking).decode


class OutputsDecoder:
    """The decoder of a 200."""

    __slots__ = ("_body", "_body_bytes_max", "_call", "_is_over")

    def __init__(self, call: OneShotCall, body_bytes_max: int = OUTPUTS_BYTES_MAX) -> None:
        self._call = call
        self._body = bytearray()
        self._body_bytes_max = body_bytes_max
        self._is_over = False

    def feed(self, data: bytes | memoryview) -> list[Decoded]:
        """Nothing yet, or the error of an answer that is longer than the bound."""
        if self._is_over:
            return []
        if len(self._body) + len(data) > self._body_bytes_max:
            return self._end(self._too_long())
        self._body += data
        return []

    def eof(self) -> list[Decoded]:
        """The result, or what is wrong with it."""
        return [] if self._is_over else self._end(self._judge())

    def _end(self, last: Decoded) -> list[Decoded]:
        self._is_over = True
        self._body = bytearray()
        return [last]

    def _too_long(self) -> EngineError:
        """Many vectors were asked for; a single one, or a list of scores, is never that long."""
        if isinstance(self._call, EmbeddingCall) and len(self._call.inputs) > 1:
            message = f"the vectors are more than {self._body_bytes_max} bytes together: send fewer inputs at once"
            return EngineError(Fault.CLIENT, "outputs", message)
        return EngineError(Fault.ENGINE, "overflow", "the engine sent an answer longer than the bound")

    def _judge(self) -> Decoded:
        try:
            outputs, tokens_in = _read(self._call, bytes(self._body))
        except NOT_JSON:
            return EngineError(Fault.ENGINE, "protocol", "the engine sent an answer that is not its protocol")
        if [output.index for output in outputs] != list(range(asked_for(self._call))):
            return EngineError(Fault.ENGINE, "protocol", "the engine did not give one output for each input")
        if not _have_one_length(outputs):
            return EngineError(Fault.ENGINE, "protocol", "the engine gave vectors of different lengths")
        return Finished(reason="stop", tokens_in=tokens_in, tokens_out=0, outputs=outputs)


def _read(call: OneShotCall, body: bytes) -> tuple[Outputs, int]:
    """Outputs by their index, and the tokens of all inputs. msgspec takes no number that is not finite."""
    if isinstance(call, EmbeddingCall):
        vectors = _decode_embeddings(body)
        return tuple(sorted(vectors.data, key=lambda output: output.index)), vectors.usage.prompt_tokens
    ranking = _decode_ranking(body)
    scores = (Score(result.index, result.relevance_score) for result in ranking.results)
    return tuple(sorted(scores, key=lambda score: score.index)), ranking.usage.prompt_tokens


def _have_one_length(outputs: Sequence[Embedding | Score]) -> bool:
    lengths = {len(output.embedding) for output in outputs if isinstance(output, Embedding)}
    return len(lengths) <= 1 and 0 not in lengths
