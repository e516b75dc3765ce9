"""`make accept N=200`: the daemon and its engines are killed in turn under load; every acked task ends exactly once."""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.crowd import Crowd, Work, judge
from tests.support.daemon import Daemon
from tests.support.pools import a_fake_pool, a_model
from tests.support.waiting import wait_until

pytestmark = pytest.mark.accept

CYCLES = int(os.environ.get("ACCEPT_CYCLES", "20"))
SEED = int(os.environ.get("ACCEPT_SEED", "1"))
TASKS_PER_CYCLE = 55
BACKLOG_MAX = 100
"""Without ends between the kills one task would be under way at all of them, and be taken for poison."""
LONG_EVERY = 8
"""One task in so many is slow enough to be hit in mid-stream by most kills."""
WORKS = [
    Work(f"task {number}" + (" [[slow_ms@10]]" if number % LONG_EVERY == 0 else ""), number, 4 + number % 13)
    for number in range(48)
]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """One state directory over all cycles, two siblings."""
    pools = [a_fake_pool(name, devices=[gpu], disconnect_grace_ms=-1) for gpu, name in enumerate(("a", "b"))]
    settings = {"retention": {"finished_ms": 3_600_000, "ids_min": 50_000}}
    made = Daemon(tmp_path, {"pools": pools, "models": a_model(tmp_path), **settings}, simulate="2x8GiB")
    yield made
    made.close()


def undisturbed(daemon: Daemon) -> dict[Work, str]:
    """The text of each work while nothing is killed."""
    return {
        work: daemon.read_stream(daemon.accept(prompt=work.prompt, seed=work.seed, max_tokens=work.max_tokens)).text
        for work in WORKS
    }


def kill_an_engine(daemon: Daemon, chance: random.Random) -> None:
    """One of the two: a task that loses both at once has lost two workers, and ends as poison."""
    if pids := daemon.engine_pids():
        os.kill(chance.choice(pids), signal.SIGKILL)


def adopted(daemon: Daemon) -> set[int]:
    """The engines that the present life took over."""
    event = "an engine of an earlier daemon is adopted"
    return {line["pid"] for line in daemon.log_lines() if line["event"] == event}


@pytest.mark.orch("ORCH-3024")
def test_nothing_acked_is_lost_repeated_or_ended_twice(daemon: Daemon) -> None:
    chance = random.Random(SEED)
    daemon.start_ready()
    texts = undisturbed(daemon)
    crowd = Crowd(daemon, WORKS, submitters=4, readers=12)
    kills = {"daemon": 0, "engine": 0}
    for cycle in range(CYCLES):
        crowd.order(TASKS_PER_CYCLE)
        wanted = crowd.acks + chance.randint(1, TASKS_PER_CYCLE)
        ends = (cycle + 1) * TASKS_PER_CYCLE - BACKLOG_MAX
        wait_until(
            lambda: (crowd.acks >= wanted and len(crowd.told) >= ends) or crowd.faults,  # noqa: B023
            within_s=90,
            what="some acks and ends",
        )
        if cycle % 2:
            kill_an_engine(daemon, chance)
            kills["engine"] += 1
        else:
            daemon.kill()
            survivors = set(daemon.engine_pids())
            daemon.start()
            wait_until(lambda: len(adopted(daemon)) >= len(survivors), within_s=30, what="the adoptions")  # noqa: B023
            assert adopted(daemon) <= survivors
            kills["daemon"] += 1
        assert not crowd.faults, crowd.faults
    crowd.close()
    assert not crowd.faults, crowd.faults
    found = judge(crowd.told, texts)

    print(f"\nkills {kills}, acked {crowd.acks}, refused on the way {dict(crowd.refusals)}, {dict(found)}")
    assert len({one.task_id for one in crowd.told}) == crowd.acks == CYCLES * TASKS_PER_CYCLE
    assert sum(daemon.series("streams_diverged_total").values()) == 0
    states = {daemon.ask("GET", f"/v1/tasks/{one.task_id}").json["state"] for one in crowd.told}
    assert states == {"ended"}
    assert daemon.stop() == 0
    assert daemon.engine_pids() == []
