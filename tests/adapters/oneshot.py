"""One-shot calls against a bare engine, through an adapter and nothing else of ours."""

from collections.abc import Sequence

from adapters.base import Adapter, Finished
from adapters.oneshot import EmbeddingCall, OneShotCall, RerankCall
from tests.support.llama_process import Process


def answered(engine: Process, adapter: Adapter, texts: Sequence[str], *, query: str | None = None) -> Finished:
    """The end of an embedding of `texts`, or of their ranking by `query`."""
    call: OneShotCall = EmbeddingCall(texts) if query is None else RerankCall(query, texts)
    status, body = engine.ask(adapter.request_outputs(call))
    decoder = adapter.outputs_decoder(call, status)
    (finished,) = decoder.feed(body) + decoder.eof()
    assert isinstance(finished, Finished), finished
    return finished
