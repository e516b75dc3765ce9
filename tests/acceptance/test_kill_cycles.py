"""`make accept N=200`: the daemon or its engine is killed N times under load; every acked task ends exactly once."""

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.pools import a_model, a_pool
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.accept, pytest.mark.engines]

CYCLES = int(os.environ.get("ACCEPT_CYCLES", "20"))
TASKS_PER_CYCLE = 50
TOKENS = 24
ENGINE_KILLS_IN_A_ROW_MAX = 3  # a worker that is started more than five times in five minutes is given up
SEED = int(os.environ.get("ACCEPT_SEED", "1"))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """One state directory over all cycles, on the real engine."""
    pool = a_pool(queue={"capacity": 4096})
    made = Daemon(tmp_path, {"pools": [pool], "models": a_model(tmp_path)})
    yield made
    made.close()


class Client(threading.Thread):
    """Submits until it is told to stop; remembers by itself what was acked."""

    def __init__(self, daemon: Daemon, count: int) -> None:
        super().__init__(daemon=True)
        self._daemon = daemon
        self._count = count
        self.acked: list[str] = []

    def run(self) -> None:
        for number in range(self._count):
            try:
                reply = self._daemon.submit(prompt=f"task {number}", max_tokens=TOKENS, seed=number)
            except OSError:
                return  # the daemon was killed: nothing is promised
            if reply.status == 202:
                self.acked.append(reply.json["task_id"])


def test_nothing_acked_is_lost_or_ends_twice(daemon: Daemon) -> None:
    chance = random.Random(SEED)
    acked: list[str] = []
    engine_kills = 0
    daemon.start_ready()
    for _ in range(CYCLES):
        client = Client(daemon, TASKS_PER_CYCLE)
        client.start()
        wanted = chance.randint(1, TASKS_PER_CYCLE)
        wait_until(lambda: len(client.acked) >= wanted or not client.is_alive(), within_s=30, what="some acks")  # noqa: B023
        engine_kills = 0 if chance.random() < 0.5 or engine_kills == ENGINE_KILLS_IN_A_ROW_MAX else engine_kills + 1
        if not engine_kills:
            daemon.kill()
            client.join()
            daemon.start_ready()
        else:
            for pid in daemon.engine_pids():
                os.kill(pid, signal.SIGKILL)
            client.join()
            daemon.wait_ready()
        acked += client.acked

    states = Counter(daemon.wait_terminal(task_id)["state"] for task_id in acked)
    ends = {task_id: daemon.read_stream(task_id).end for task_id in acked}

    print(f"\n{CYCLES} kills, {len(acked)} acked, states {dict(states)}")
    assert len(set(acked)) == len(acked) > 0
    lost = [task_id for task_id, end in ends.items() if end.name != "end" and end.data.get("reason") != "poison"]
    assert lost == []
