"""The client and the CLI against the real daemon, which is killed under their hands."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor.client import ApiError, OrchClient, RetryPolicy, Token, new_completion
from supervisor.client.frames import StreamEvent
from supervisor.wire.codes import Determinism, KvHint
from supervisor.wire.frames import End
from supervisor.wire.tasks import SubmitTask
from tests.daemon.conftest import MakeDaemon, make_daemon
from tests.support.daemon import Daemon
from tests.support.pools import a_fake_pool
from tests.support.waiting import wait_until

__all__ = ["make_daemon"]

ORCHCTL = str(Path(sys.executable).parent / "orchctl")
TOKENS = 120
PROMPT = "go on [[slow_ms@10]]"
PATIENT = RetryPolicy(tries_max=400, total_s=60.0, longest_s=0.25)


def a_strict_task(prompt: str = PROMPT) -> SubmitTask:
    task = new_completion(prompt, model_ref="tiny", ctx=512, max_tokens=TOKENS)
    task.seed = 5
    task.determinism = Determinism.STRICT
    return task


def text_of(events: list[StreamEvent]) -> str:
    return "".join(event.t for event in events if isinstance(event, Token))


def a_port(daemon: Daemon) -> int:
    """The daemon keeps its port over its lives, as one in service does."""
    text = daemon.config_path.read_text()
    daemon.config_path.write_text(text.replace("port: 0", f"port: {daemon.port}"))
    return daemon.port


@pytest.fixture
def daemon(make_daemon: MakeDaemon) -> Daemon:
    pool: dict[str, Any] = a_fake_pool(disconnect_grace_ms=30_000)
    return make_daemon(pool).start_ready()


@pytest.mark.orch("ORCH-2002", "ORCH-3045")
@pytest.mark.parametrize("way", ["tcp", "unix"])
async def test_a_strict_stream_goes_on_over_a_daemon_that_is_killed(daemon: Daemon, way: str) -> None:
    address = f"http://127.0.0.1:{a_port(daemon)}" if way == "tcp" else f"unix:{daemon.socket_path}"
    async with OrchClient(address, retry=PATIENT) as client:
        undisturbed = await client.complete(a_strict_task())
        task = a_strict_task()
        await client.submit(task)
        events = client.stream(task.task_id)
        seen = [await anext(events) for _ in range(30)]
        daemon.kill()
        reading = asyncio.ensure_future(to_the_end(events))
        await asyncio.to_thread(daemon.start)
        seen += await reading

    assert text_of(seen) == undisturbed.text
    assert isinstance(seen[-1], End)
    assert seen[-1].tokens_out == TOKENS
    assert [event.i for event in seen if isinstance(event, Token)] == list(range(TOKENS))


async def to_the_end(events: Any) -> list[StreamEvent]:
    return [event async for event in events]


async def test_a_submit_whose_daemon_was_killed_is_one_task(daemon: Daemon) -> None:
    address = f"http://127.0.0.1:{a_port(daemon)}"
    async with OrchClient(address, retry=PATIENT) as client:
        task = a_strict_task("hello")
        first = await client.submit(task)
        daemon.kill()
        again = asyncio.ensure_future(client.submit(task))
        await asyncio.to_thread(daemon.start)

        assert (await again).job_id == first.job_id
        assert len((await client.tasks()).tasks) == 1


async def test_a_cancelled_task_shows_no_more_than_was_said(daemon: Daemon) -> None:
    async with OrchClient(f"http://127.0.0.1:{daemon.port}") as client:
        task = a_strict_task()
        await client.submit(task)
        events = client.stream(task.task_id)
        seen = [await anext(events) for _ in range(5)]
        emitted = await client.cancel(task.task_id)
        seen += await to_the_end(events)

    assert sum(isinstance(event, Token) for event in seen) == emitted


async def test_sessions_are_typed_and_end_when_they_are_told_to(daemon: Daemon) -> None:
    async with OrchClient(f"http://127.0.0.1:{daemon.port}") as client:
        task = a_strict_task("hello")
        task.determinism, task.kv_hint = Determinism.BEST_EFFORT, KvHint.REUSE
        await client.complete(task)
        view = await client.session(task.session_id)
        page = await client.sessions()
        await client.forget_session(task.session_id)
        with pytest.raises(ApiError) as caught:
            await client.session(task.session_id)

    assert (view.session_id, view.turns) == (task.session_id, 1)
    assert [one.session_id for one in page.sessions] == [task.session_id]
    assert caught.value.status == 404


def test_orchctl_submit_does_not_notice_that_the_daemon_was_killed(daemon: Daemon) -> None:
    argv = [ORCHCTL, "submit", "-q", "--strict", "--seed", "5", "--max-tokens", str(TOKENS)]
    environ = {**os.environ, "ORCHCTL_SOCKET": str(daemon.socket_path)}
    undisturbed = subprocess.run([*argv, PROMPT], env=environ, capture_output=True, check=True, timeout=60).stdout

    process = subprocess.Popen([*argv, PROMPT], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    assert process.stdout is not None
    begun = process.stdout.read(40)
    daemon.kill()
    daemon.start()
    rest, err = process.communicate(timeout=90)

    assert err == b""
    assert begun + rest == undisturbed
    assert process.returncode == 0


def test_orchctl_submit_waits_for_room(daemon: Daemon) -> None:
    """Ctrl-C and all other ways out are shown in tests/cli."""
    environ = {**os.environ, "ORCHCTL_SOCKET": str(daemon.socket_path)}
    subprocess.run([ORCHCTL, "drain", "tiny"], env=environ, check=True, timeout=30)
    process = subprocess.Popen(
        [ORCHCTL, "submit", "-q", "hello"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )

    def has_refused() -> bool:
        return any(value > 0 for value in daemon.series("tasks_rejected_total").values())

    wait_until(has_refused, within_s=30, what="a refused submit")
    subprocess.run([ORCHCTL, "resume", "tiny"], env=environ, check=True, timeout=30)
    out, err = process.communicate(timeout=90)

    assert (process.returncode, err) == (0, b"")
    assert out
