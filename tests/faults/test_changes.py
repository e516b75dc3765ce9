"""Changes of a daemon that serves: nobody notices them, and a kill in the middle leaves the old or the new, whole."""

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.client import NEVER, RetryPolicy
from tests.daemon.conftest import MakeDaemon
from tests.support.callers import Seen, keep_calling
from tests.support.changes import a_fake_config, change, pool_in_file, rewrite, rollout, served_by, settle
from tests.support.daemon import Daemon
from tests.support.fake_engine_script import GOOD
from tests.support.fast_pool import a_fast_pool
from tests.support.pools import a_fake_pool
from tests.support.waiting import until, wait_until

SLOW_LOAD = dataclasses.replace(GOOD, ready_after_s=2.0)
DEADLINE_MS = 5_000
SERVED_BETWEEN = 5


@pytest.fixture
def served(make_daemon: MakeDaemon, tmp_path: Path) -> Daemon:
    """A Ready pool with four slots, and a second model."""
    pool = {**a_fast_pool(slots=4, tick_ms=5.0, disconnect_grace_ms=-1), "id": "tiny"}
    return make_daemon(settings=a_fake_config(tmp_path, pool)).start_ready()


async def under_load(daemon: Daemon, retry: RetryPolicy, *acts: Callable[[Daemon], None]) -> Seen:
    """Do all of it, one after the other, while callers come; what these saw. Before and after each some are served."""
    seen, over = Seen(), asyncio.Event()
    calling = asyncio.create_task(keep_calling(daemon, over, retry, seen))
    try:
        for act in acts:
            await until_served(seen)
            await asyncio.to_thread(act, daemon)
        await until_served(seen)
    finally:
        over.set()
        await calling
    return seen


async def until_served(seen: Seen) -> None:
    target = seen.ended + SERVED_BETWEEN
    await until(lambda: seen.ended >= target or seen.failed, within_s=30, what="some ends")


def put_other_model(daemon: Daemon) -> None:
    change(daemon, "reload", {"new_model_ref": "other"})
    assert settle(daemon)["model_ref"] == "other"


def put_first_model(daemon: Daemon) -> None:
    change(daemon, "reload", {"new_model_ref": "tiny"})
    assert settle(daemon)["model_ref"] == "tiny"


def change_config(daemon: Daemon) -> None:
    rewrite(daemon, pools=[{**pool_in_file(daemon, "tiny"), "queue": {"capacity": 321}}])
    reply = daemon.ask_control("POST", "/v1/config/reload", {})
    assert reply.status == 200, reply.body


def upgrade(daemon: Daemon) -> None:
    """The next image answers nobody until it has read its configuration."""
    life = life_of(daemon)
    with daemon.silence():
        assert daemon.ask_control("POST", "/v1/upgrade", {"deadline_ms": DEADLINE_MS}).status == 202
        wait_until(lambda: life_of(daemon) != life, within_s=30, what="the next life")
        daemon.wait_ready()


def life_of(daemon: Daemon) -> str:
    life: str = daemon.ask_control("GET", "/v1/upgrade").json["life"]
    return life


@pytest.mark.fault("F42")
async def test_three_reloads_under_load_fail_no_request(served: Daemon) -> None:
    seen = await under_load(served, NEVER, put_other_model, change_config, put_first_model)

    assert seen.failed == []
    assert seen.ended >= 4 * SERVED_BETWEEN


@pytest.mark.fault("F42")
async def test_an_upgrade_under_load_fails_no_request(served: Daemon) -> None:
    engines = served.engine_pids()

    seen = await under_load(served, RetryPolicy(), upgrade)

    assert seen.failed == []
    assert seen.ended >= 2 * SERVED_BETWEEN
    assert served.engine_pids() == engines


@pytest.mark.fault("F41")
@pytest.mark.parametrize("when", ["begun", "loading", "over"])
def test_a_kill_in_the_middle_of_a_reload_leaves_the_old_or_the_new_whole(
    make_daemon: MakeDaemon, tmp_path: Path, when: str
) -> None:
    pool = a_fake_pool(script=SLOW_LOAD if when != "over" else GOOD)
    daemon = make_daemon(settings=a_fake_config(tmp_path, pool)).start_ready()
    waiting = [daemon.accept(prompt=f"{number}", seed=number) for number in range(3)]
    change(daemon, "reload", {"new_model_ref": "other"})
    if when == "loading":
        wait_until(lambda: len(daemon.engine_pids()) == 2, what="an engine of the new model")
    if when == "over":
        settle(daemon)

    with daemon.silence():
        daemon.kill()
        daemon.start_ready()
    settle(daemon)

    page, started = rollout(daemon), served_by(daemon)
    assert (page["revision"], page["model_ref"]) in {(1, "tiny"), (2, "other")}
    assert started["replica_id"].startswith("tiny/" if page["revision"] == 1 else "tiny+2/")
    assert [daemon.read_stream(task_id).end.name for task_id in waiting] == ["end"] * 3
    wait_until(lambda: len(daemon.engine_pids()) == 1 + bool(page["standby"]), within_s=30, what="no engine too many")
