"""Whatever text a client sends as a prompt, the service gets exactly that, and the same bytes come out of a stream."""

import pytest

from tests.http.conftest import Serve
from tests.support.hostile_text import hostile_strings, read_event_stream
from tests.support.memory_service import MemoryService, submit_body
from tests.support.rawhttp import RawClient

STRINGS = 1000
TASK_ID = "00000000-0000-4000-8000-000000000001"


@pytest.mark.orch("ORCH-3015")
async def test_hostile_prompts_arrive_exactly(serve: Serve, service: MemoryService) -> None:
    server = await serve()
    service.waiting_max = STRINGS + 1
    texts = hostile_strings(STRINGS, seed=2)
    async with await RawClient.tcp(server.port) as client:
        answers = [await client.ask("POST", "/v1/tasks", submit_body(prompt=text)) for text in texts]

    assert {answer.status for answer in answers} == {202}
    assert [held.request.prompt for held in service.held.values()] == texts


@pytest.mark.orch("ORCH-2002")
async def test_hostile_tokens_leave_exactly(serve: Serve, service: MemoryService) -> None:
    server = await serve()
    texts = hostile_strings(STRINGS, seed=3)
    async with await RawClient.tcp(server.port) as client:
        await client.ask("POST", "/v1/tasks", submit_body(task_id=TASK_ID))
        task = service.task_of(TASK_ID)
        task.start()
        task.emit(*texts)
        task.finish()
        answer = await client.ask("GET", f"/v1/tasks/{TASK_ID}/stream")

    events = read_event_stream(answer.body)
    assert [data["t"] for _, name, data in events if name == "token"] == texts
    assert [name for _, name, _ in events if name != "token"] == ["started", "end"]
