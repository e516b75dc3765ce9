"""`make accept`: the daemon is upgraded again and again under load; no request fails and no connection is refused."""

import asyncio
import os
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.client import OrchClient
from supervisor.wire.codes import Engine, Priority, Workload
from supervisor.wire.tasks import SubmitTask
from tests.support.daemon import Daemon
from tests.support.health_prober import HealthProber
from tests.support.pools import a_fake_pool, a_model
from tests.support.waiting import wait_until

pytestmark = pytest.mark.accept

UPGRADES = int(os.environ.get("ACCEPT_CYCLES", "100"))
CLIENTS = 4
DEADLINE_MS = 500
PROBE_EVERY_S = 0.01
CONNECT_S = 5.0
HEALTH_S = 5.0
"""Loose, for a busy machine: one that waited for the workers would be longer in a bad case."""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    pools = [a_fake_pool(name, devices=[gpu], disconnect_grace_ms=-1) for gpu, name in enumerate(("a", "b"))]
    made = Daemon(tmp_path, {"pools": pools, "models": a_model(tmp_path)}, simulate="2x8GiB")
    yield made
    made.close()


class Prober:
    """Connects to the TCP port all the time; counts what the kernel said."""

    def __init__(self, port: int) -> None:
        self.seen: Counter[str] = Counter()
        self.slowest_s = 0.0
        self._port = port
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(PROBE_EVERY_S):
            began_s = time.monotonic()
            try:
                socket.create_connection(("127.0.0.1", self._port), CONNECT_S).close()
                self.seen["connected"] += 1
            except OSError as error:
                self.seen[type(error).__name__] += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)

    def close(self) -> None:
        self._over.set()
        self._thread.join()


class Load:
    """Clients that hand in strict tasks one after the other and read each to its end."""

    def __init__(self, port: int) -> None:
        self.finished = 0
        self.faults: list[str] = []
        self.slowest_s = 0.0
        self.retries: Counter[str] = Counter()
        self._address = f"http://127.0.0.1:{port}"
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))
        self._thread.start()

    async def _all(self) -> None:
        await asyncio.gather(*(self._one(number) for number in range(CLIENTS)))

    async def _one(self, number: int) -> None:
        def note(error: Exception, _: float) -> None:
            self.retries[f"{type(error).__name__}: {error}"[:80]] += 1

        async with OrchClient(self._address, on_retry=note) as client:
            turn = 0
            while not self._over.is_set():
                turn += 1
                began_s = time.monotonic()
                await self._complete(client, number, turn)
                self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)

    async def _complete(self, client: OrchClient, number: int, turn: int) -> None:
        tokens = 5 + (turn * 7 + number) % 30
        task = SubmitTask(
            task_id=str(uuid.uuid4()),
            session_id=str(uuid.uuid4()),
            workload=Workload.COMPLETION,
            model_ref="tiny",
            engine=Engine.LLAMACPP,
            ctx=512,
            priority=Priority.INTERACTIVE,
            max_tokens=tokens,
            deadline_ms=120_000,
            prompt=f"client {number} turn {turn} [[slow_ms@5]]",
            seed=turn,
        )
        try:
            done = await client.complete(task)
        except Exception as error:  # noqa: BLE001  (every one is a failed request)
            self.faults.append(f"{type(error).__name__}: {error}")
            return
        if done.end.tokens_out != tokens:
            self.faults.append(f"{done.end.tokens_out} tokens in place of {tokens}")
        self.finished += 1

    def close(self) -> None:
        self._over.set()
        self._thread.join()


def life_of(daemon: Daemon) -> str:
    life: str = daemon.ask_control("GET", "/v1/upgrade").json["life"]
    return life


@pytest.mark.orch("ORCH-3024", "ORCH-3053")
def test_upgrades_under_load_fail_no_request_and_refuse_no_connection(daemon: Daemon) -> None:
    daemon.start_ready()
    engines, process = sorted(daemon.engine_pids()), daemon.process
    prober, load, took_s = Prober(daemon.port), Load(daemon.port), list[float]()
    health = HealthProber(daemon)
    for _ in range(UPGRADES):
        life, target = life_of(daemon), load.finished + 2
        wait_until(lambda: load.finished >= target or load.faults, within_s=60, what="some ends")  # noqa: B023
        began_s = time.monotonic()
        assert daemon.ask_control("POST", "/v1/upgrade", {"deadline_ms": DEADLINE_MS}).status == 202
        wait_until(lambda: life_of(daemon) != life, within_s=60, what="the next life")  # noqa: B023
        took_s.append(time.monotonic() - began_s)
    daemon.wait_ready()
    load.close()
    prober.close()
    health.close()

    ordered = sorted(took_s)
    print(
        f"\n{UPGRADES} upgrades: {load.finished} requests, {len(load.faults)} failed, slowest {load.slowest_s:.1f} s; "
        f"probes {dict(prober.seen)}, slowest connect {prober.slowest_s:.2f} s; "
        f"health: slowest {health.slowest_s:.2f} s, {len(health.slow)} over 1 s; "
        f"one upgrade p50 {ordered[len(ordered) // 2]:.1f} s, max {ordered[-1]:.1f} s; retries {dict(load.retries)}"
    )
    assert load.faults == []
    assert set(prober.seen) == {"connected"}
    assert health.slowest_s < HEALTH_S
    assert sorted(daemon.engine_pids()) == engines
    assert daemon.process is process
    assert daemon.process is not None
    assert daemon.process.poll() is None
    assert sum(daemon.series("streams_diverged_total").values()) == 0
    assert daemon.stop() == 0
    assert daemon.engine_pids() == []
