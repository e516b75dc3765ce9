"""What else a client asks: tasks, pools, sets, over TCP and over the control socket."""

from pathlib import Path

import pytest

from supervisor.client import ApiError, OrchClient, UnreachableError
from supervisor.wire.pools import PoolChange
from tests.client.conftest import FakeTime, Peers, Serve, a_task
from tests.client.scripted_peer import answer, resets, says
from tests.support.memory_service import MemoryService


async def test_tasks_are_typed(client: OrchClient, service: MemoryService) -> None:
    tasks = [a_task(), a_task(), a_task()]
    for task in tasks:
        await client.submit(task)

    page = await client.tasks(limit=2)
    view = await client.task(tasks[0].task_id)

    assert [one.task_id for one in page.tasks] == [tasks[2].task_id, tasks[1].task_id]
    assert page.truncated
    assert (view.task_id, view.state) == (tasks[0].task_id, "waiting")


@pytest.mark.orch("ORCH-3026")
async def test_a_cancel_says_how_many_tokens_there_are(client: OrchClient, service: MemoryService) -> None:
    task = a_task()
    await client.submit(task)
    held = service.task_of(task.task_id)
    held.start()
    held.emit("a", "b")

    assert await client.cancel(task.task_id) == 2
    assert await client.cancel(task.task_id) == 2


async def test_a_cancel_is_sent_again_until_it_is_answered(peers: Peers, time: FakeTime) -> None:
    peer = await peers(resets(), says(answer(204, b"", X_Tokens_Emitted="7")))

    async with OrchClient(peer.url, pace=time.pace) as client:
        assert await client.cancel("t") == 7

    assert [asked.path for asked in peer.asked] == ["/v1/tasks/t/cancel"] * 2


async def test_a_look_is_asked_once(peers: Peers, time: FakeTime) -> None:
    peer = await peers(says(answer(503, b"")))

    async with OrchClient(peer.url, pace=time.pace) as client:
        with pytest.raises(Exception, match="answered 503"):
            await client.health("p")

    assert len(peer.asked) == 1


async def test_pools_and_sets(client: OrchClient, service: MemoryService) -> None:
    assert (await client.health("p")).ready
    assert [one.set_id for one in (await client.replicasets()).replicasets] == ["s"]


async def test_a_name_cannot_become_another_route(client: OrchClient) -> None:
    task = a_task()
    await client.submit(task)

    with pytest.raises(ApiError) as caught:
        await client.task(f"{task.task_id}?x=")

    assert caught.value.status == 404


async def test_an_operator_drains_over_the_control_socket(serve: Serve, service: MemoryService, tmp_path: Path) -> None:
    await serve(socket_path=tmp_path / "c.sock")

    async with OrchClient(f"unix:{tmp_path / 'c.sock'}") as client:
        assert await client.drain("p", 500) == PoolChange(pool_id="p", draining=True)
        assert service.draining == {"p": 500}
        assert await client.resume("p") == PoolChange(pool_id="p", draining=False)


async def test_a_socket_that_is_not_there_names_its_cause(tmp_path: Path) -> None:
    async with OrchClient(f"unix:{tmp_path / 'none'}") as client:
        with pytest.raises(UnreachableError) as caught:
            await client.health("p")

    assert isinstance(caught.value.os_error, FileNotFoundError)


async def test_a_client_that_was_not_opened_says_so() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await OrchClient("http://127.0.0.1:1").task("t")
