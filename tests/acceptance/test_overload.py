"""Overload of a real daemon: honest hints, fast admission, protected interactive tasks, and batch that still moves."""

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles

import psutil
import pytest

from tests.support.daemon import Daemon
from tests.support.fast_pool import a_fast_pool
from tests.support.open_loop import Seen, open_loop
from tests.support.pools import a_model
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.accept]

SECONDS = float(os.environ.get("ACCEPT_OVERLOAD_S", "20"))
SLOTS = 4
TOKENS = 20
TICK_MS = 25.0
SERVICE_MS = TOKENS * TICK_MS
CAPACITY_PER_S = SLOTS * 1_000 / SERVICE_MS
INTERACTIVE, BATCH = "interactive", "batch"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    bounds = [{"name": INTERACTIVE, "queue_capacity": 64}, {"name": BATCH, "queue_capacity": 256}]
    pool = a_fast_pool(
        slots=SLOTS,
        tick_ms=TICK_MS,
        queue={"capacity": 300},
        admission={"priorities": bounds},
        disconnect_grace_ms=-1,
    )
    made = Daemon(tmp_path, {"pools": [pool], "models": a_model(tmp_path)})
    made.start_ready()
    for _ in range(5):
        made.read_stream(made.accept(max_tokens=TOKENS, prompt="#9999 warm", determinism="best_effort"))
    yield made
    made.close()


def report(what: str, **figures: float) -> None:
    print("\n" + json.dumps({"what": what, **{name: round(value, 3) for name, value in figures.items()}}))


def rss_mb(daemon: Daemon) -> float:
    assert daemon.process is not None
    return float(psutil.Process(daemon.process.pid).memory_info().rss) / 1e6


def figures(seen: Seen) -> dict[str, float]:
    return {
        "submits": seen.firsts + seen.retries,
        "share_429": seen.refused / (seen.firsts + seen.retries),
        "honesty": seen.honesty,
        "p50_ms": seen.latency_ms(0.5),
        "p99_ms": seen.latency_ms(0.99),
    }


@pytest.mark.orch("ORCH-3005", "ORCH-3025")
def test_nine_of_ten_retries_at_the_hint_succeed_at_ten_times_the_load_and_memory_stays(daemon: Daemon) -> None:
    quiet = open_loop(daemon.port, CAPACITY_PER_S * 0.9, SECONDS / 2, max_tokens=TOKENS)
    report("admission at 1 x", **figures(quiet))
    before_mb = rss_mb(daemon)
    loud = open_loop(daemon.port, CAPACITY_PER_S * 10, SECONDS, max_tokens=TOKENS, seed=3)
    metrics = daemon.pool("tiny")["metrics"]
    prediction = {name: value for name, value in metrics.items() if name.startswith("predicted_") and value is not None}
    report("admission at 10 x", **figures(loud), rss_growth_mb=rss_mb(daemon) - before_mb, **prediction)

    assert quiet.strange == loud.strange == []
    assert loud.refused > loud.firsts / 2
    assert loud.retries > 100
    assert loud.honesty >= 0.9
    assert rss_mb(daemon) - before_mb < 60, "the streams of the retention are in memory; no more than they may grow"


def started(daemon: Daemon, priority: str) -> float:
    return sum(value for labels, value in daemon.series("tasks_started_total").items() if f'"{priority}"' in labels)


def waiting(daemon: Daemon, priority: str) -> float:
    return sum(value for labels, value in daemon.series("queue_depth").items() if f'"{priority}"' in labels)


@pytest.mark.orch("ORCH-3051", "ORCH-3004")
def test_interactive_tasks_wait_no_longer_than_one_service_time_while_batch_saturates(daemon: Daemon) -> None:
    batch = threading.Thread(
        target=open_loop,
        args=(daemon.port, CAPACITY_PER_S * 2, SECONDS),
        kwargs={"max_tokens": TOKENS, "priority": BATCH},
    )
    batch.start()
    wait_until(lambda: waiting(daemon, BATCH) > 4 * SLOTS, within_s=30, what="a queue of batch")
    seen = open_loop(daemon.port, CAPACITY_PER_S * 0.3, SECONDS / 2, max_tokens=TOKENS, priority=INTERACTIVE, seed=5)
    batch.join()

    views = [daemon.wait_terminal(task_id) for task_id in seen.accepted]
    waits = [view["queue_time_ms"] for view in views]
    p95_ms = quantiles(waits, n=20)[-1]
    report("interactive under batch saturation", tasks=len(waits), p95_ms=p95_ms, service_ms=SERVICE_MS)
    assert len(waits) > 10
    assert seen.refused == 0
    assert p95_ms <= SERVICE_MS


@pytest.mark.orch("ORCH-3051")
def test_batch_gets_its_ninth_of_the_dispatches_while_interactive_saturates(daemon: Daemon) -> None:
    flood = threading.Thread(
        target=open_loop,
        args=(daemon.port, CAPACITY_PER_S * 4, SECONDS),
        kwargs={"max_tokens": TOKENS, "priority": INTERACTIVE},
    )
    for number in range(200):
        daemon.accept(priority=BATCH, max_tokens=TOKENS, prompt=f"#{number + 1} b", determinism="best_effort")
    flood.start()
    wait_until(lambda: waiting(daemon, INTERACTIVE) > 4 * SLOTS, within_s=30, what="a queue of interactive tasks")
    before = (started(daemon, INTERACTIVE), started(daemon, BATCH))
    until_s = time.monotonic() + SECONDS / 2
    wait_until(lambda: time.monotonic() >= until_s, within_s=SECONDS, what="the end of the window")
    assert waiting(daemon, INTERACTIVE) > 0
    assert waiting(daemon, BATCH) > 0
    interactive, batch = (started(daemon, name) - was for name, was in zip((INTERACTIVE, BATCH), before, strict=True))
    flood.join()

    report(
        "batch under an interactive flood", interactive=interactive, batch=batch, share=batch / (interactive + batch)
    )
    assert batch / (interactive + batch) == pytest.approx(1 / 9, abs=0.02)
