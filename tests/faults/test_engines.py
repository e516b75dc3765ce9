"""Engines that die, hang or cannot be reached well: what must be observed, and how soon."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.control_groups import a_group
from tests.support.daemon import Daemon
from tests.support.fake_engine_script import Script
from tests.support.fault_watch import Measure
from tests.support.pools import FAKE_ENGINE, a_fake_pool, a_pool, a_scripted_pool
from tests.support.waiting import wait_until

BAD_WIRE = str(Path(__file__).parent.parent / "support" / "bad_wire.py")
UNREADY_WITHIN_S = 1.0
QUICK = {"wall_ms": 60_000, "idle_ms": 500, "first_token_ms": 500}
FLAGS = [
    "--host",
    "127.0.0.1",
    "--port",
    "@PORT@",
    "-c",
    "{ctx_total}",
    "-np",
    "{slots}",
    "-a",
    "{pool_id}",
    "--metrics",
]


@pytest.mark.fault("F01")
def test_an_idle_engine_that_dies_is_noticed_within_a_second_and_replaced(
    make_daemon: MakeDaemon, measured: Measure
) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    old = daemon.pool("tiny")["pid"]

    os.kill(old, signal.SIGKILL)
    began = time.monotonic()
    wait_until(lambda: not daemon.pool("tiny")["ready"], within_s=UNREADY_WITHIN_S, what="Unready")
    unready_s = time.monotonic() - began
    daemon.wait_ready()
    ready_s = time.monotonic() - began
    measured("Unready after", unready_s * 1_000, "ms")
    measured("Ready after", ready_s, "s")

    assert daemon.pool("tiny")["pid"] != old
    assert daemon.pool("tiny")["metrics"]["restarts_total"] == 1
    assert unready_s <= UNREADY_WITHIN_S
    assert ready_s < 10
    assert daemon.tasks_logged() == []


@pytest.mark.fault("F04")
def test_an_engine_that_cannot_be_killed_for_now_holds_up_nobody(make_daemon: MakeDaemon) -> None:
    """A process in the freezer takes no signal, SIGKILL included, as one that waits in a driver does."""
    pools = [a_fake_pool(name, devices=[gpu], timeouts=QUICK) for gpu, name in enumerate(("a", "b"))]
    daemon = make_daemon(*pools, simulate="2x8GiB").start_ready()
    frozen = daemon.pool("a")["pid"]
    with a_group("freezer") as freezer:
        freezer.take(frozen)
        freezer.set("freezer.state", "FROZEN")

        streams = [daemon.read_stream(daemon.accept(prompt=f"t{number}", max_tokens=4)) for number in range(8)]
        wait_until(lambda: not daemon.pool("a")["ready"], within_s=30, what="a worker that is given up")
        freezer.set("freezer.state", "THAWED")

    assert [stream.end.name for stream in streams].count("end") >= 7
    wait_until(lambda: daemon.pool("a")["pid"] not in (frozen, None), within_s=40, what="a new worker")
    daemon.wait_ready()


@pytest.mark.fault("F05")
def test_an_engine_that_takes_connections_and_never_answers_is_never_ready(make_daemon: MakeDaemon) -> None:
    script = Script(health_hangs=True)
    launch = {**a_fake_pool(script=script)["launch"], "load_timeout_ms": 1_500}
    daemon = make_daemon({**a_fake_pool(script=script), "launch": launch}).start()

    wait_until(lambda: daemon.pool("tiny")["state"] == "backoff", within_s=20, what="a failed start")

    assert "health" in daemon.pool("tiny")["steps"][-1]["name"]
    assert daemon.submit().status == 503


@pytest.mark.fault("F05")
def test_a_task_that_gets_no_first_token_ends_at_its_bound(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(timeouts={"first_token_ms": 400})).start_ready()

    stream = daemon.read_stream(daemon.accept(prompt="x [[hang@0]]", max_tokens=50))

    assert (stream.end.data["code"], stream.end.data["reason"]) == ("DECODE_TIMEOUT", "stalled")


@pytest.mark.fault("F16")
def test_a_worker_that_cannot_be_forked_is_tried_again_until_it_can(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    assert daemon.process is not None
    with a_group("pids") as pids:
        pids.take(daemon.process.pid)
        threads = int(pids.get("pids.current"))
        pids.set("pids.max", threads)
        os.kill(daemon.pool("tiny")["pid"], signal.SIGKILL)
        wait_until(lambda: daemon.pool("tiny")["state"] == "backoff", within_s=20, what="a spawn that failed")
        wait_until(lambda: "no further thread" in str(daemon.pool("tiny")["cause"]), within_s=20, what="its cause")
        pids.set("pids.max", "max")

        daemon.wait_ready()

    assert daemon.read_stream(daemon.accept(prompt="fine")).end.name == "end"


@pytest.mark.fault("F39")
@pytest.mark.parametrize("how", ["bytes", "slow", "cut", "reset"])
def test_a_bad_wire_to_the_engine_costs_time_and_never_text(make_daemon: MakeDaemon, how: str) -> None:
    command = ["{python}", BAD_WIRE, how, "{port}", "{python}", FAKE_ENGINE, "-m", "{model_path}", *FLAGS]
    pool = {**a_pool(), "launch": {"command": command}}
    good = make_daemon(a_fake_pool("tiny")).start_ready()
    tasks = [{"prompt": f"wire {number}", "seed": number, "max_tokens": 60} for number in range(4)]
    texts = [good.read_stream(good.accept(**task)).text for task in tasks]
    assert good.stop() == 0

    spoiled = make_daemon(pool, settings={"state_dir": str(good.folder / "state2")}).start_ready()
    streams = [spoiled.read_stream(spoiled.accept(**task)) for task in tasks]

    ended = [(stream.text, text) for stream, text in zip(streams, texts, strict=True) if stream.end.name == "end"]
    assert all(got == wanted for got, wanted in ended)
    assert {stream.end.data["code"] for stream in streams if stream.end.name == "error"} <= {"WORKER_RESET"}
    assert len(ended) >= 2


@pytest.mark.fault("F20")
def test_vram_that_runs_out_in_decode_is_a_worker_reset_and_counted_as_what_it_was(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    daemon = make_daemon(a_scripted_pool(tmp_path / "script.json", Script(), determinism="best_effort")).start_ready()

    stream = daemon.read_stream(daemon.accept(prompt="x [[abort@3]]", determinism="best_effort"))
    wait_until(lambda: vram_ooms(daemon) == 1, what="the end in the metrics")
    daemon.wait_ready()

    assert stream.end.data["code"] == "WORKER_RESET"
    assert vram_ooms(daemon) == 1


def vram_ooms(daemon: Daemon) -> float:
    series = daemon.series("oom_events_total")
    return sum(value for labels, value in series.items() if 'kind="vram"' in labels)
