"""From an accepted task to what is asked of an engine, by workload. Pure; decides no admission and sends nothing.

A completion has a prompt. An embedding has inputs. Of the inputs of a rerank the first one is the query, the others are
its documents. A *piece* is what goes through the model at once and so must fit a slot's context: a prompt (with what is
generated after it), one input, the query with one document.
"""

from collections.abc import Sequence
from typing import assert_never

from adapters.base import CompletionCall
from adapters.oneshot import EmbeddingCall, OneShotCall, RerankCall
from supervisor.wire.codes import Workload

Call = CompletionCall | OneShotCall


def pieces_of(workload: Workload, prompt: str, inputs: Sequence[str]) -> Sequence[str]:
    """The pieces of a task."""
    match workload:
        case Workload.COMPLETION:
            return (prompt,)
        case Workload.EMBEDDING:
            return inputs
        case Workload.RERANK:
            query, *documents = inputs
            return [f"{query}\n{document}" for document in documents]
        case _:
            assert_never(workload)


def one_shot_call(workload: Workload, inputs: Sequence[str]) -> OneShotCall:
    """The call of a task that is no completion."""
    assert workload is not Workload.COMPLETION, "a completion is no one-shot call"
    return EmbeddingCall(inputs) if workload is Workload.EMBEDDING else RerankCall(inputs[0], inputs[1:])
