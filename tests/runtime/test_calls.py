"""What becomes of a submitted task by its workload: its pieces, its bounds, and the call to the engine."""

import pytest

from adapters.oneshot import EmbeddingCall, RerankCall
from supervisor.core.tasks import Task
from supervisor.runtime.calls import one_shot_call, pieces_of
from supervisor.runtime.task_codec import read_body
from supervisor.wire.codes import Workload
from tests.runtime.submitted import a_task


def bounds_of(task: Task) -> tuple[int, int, int]:
    return task.prompt_bytes, task.max_tokens, task.expected_tokens


@pytest.mark.orch("ORCH-3015")
def test_a_completion_is_as_long_as_its_prompt_and_what_it_generates() -> None:
    task = a_task(Workload.COMPLETION)

    assert bounds_of(task) == (5, 16, 16)
    assert (read_body(task).prompt, read_body(task).inputs) == ("été", ())


@pytest.mark.orch("ORCH-3015")
def test_of_an_embedding_the_longest_input_must_fit_and_all_of_them_are_work() -> None:
    task = a_task(Workload.EMBEDDING, "a", "été", "bcd")

    assert bounds_of(task) == (5, 0, 9)
    assert one_shot_call(task.workload, read_body(task).inputs) == EmbeddingCall(("a", "été", "bcd"))


def test_a_prompt_to_be_embedded_is_a_single_input() -> None:
    task = a_task(Workload.EMBEDDING)

    assert (read_body(task).prompt, read_body(task).inputs) == ("", ("été",))
    assert bounds_of(task) == (5, 0, 5)


@pytest.mark.orch("ORCH-3015")
def test_of_a_rerank_the_query_must_fit_with_the_longest_document() -> None:
    task = a_task(Workload.RERANK, "query", "a", "document")

    assert bounds_of(task) == (len("query\ndocument"), 0, len("query\na") + len("query\ndocument"))
    assert one_shot_call(task.workload, read_body(task).inputs) == RerankCall("query", ("a", "document"))


def test_every_document_is_a_piece_with_the_query() -> None:
    assert pieces_of(Workload.RERANK, "", ("q", "a", "b")) == ["q\na", "q\nb"]
