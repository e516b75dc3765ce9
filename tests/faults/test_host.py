"""A host that runs out of something, stands still or jumps in time under a daemon that serves."""

import contextlib
import os
import socket
import threading
import time
from pathlib import Path

import psutil
import pytest

from supervisor.runtime.json_log import QUEUE_MAX
from tests.daemon.conftest import MakeDaemon
from tests.support.control_groups import a_group
from tests.support.daemon import Daemon
from tests.support.pools import ROOT, a_fake_pool
from tests.support.small_disks import build_preload
from tests.support.waiting import wait_until

SLOW = "[[slow_ms@10]]"
FROZEN_S = float(os.environ.get("FAULT_FROZEN_S", "3"))


@pytest.mark.fault("F15")
def test_without_descriptors_accepting_pauses_and_streams_live(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    process = psutil.Process(daemon.pid)
    with daemon.open_stream(daemon.accept(prompt=SLOW, max_tokens=400)) as events, contextlib.ExitStack() as crowd:
        next(events)
        limits = process.rlimit(psutil.RLIMIT_NOFILE)
        process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 8, limits[1]))
        for _ in range(200):
            crowd.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
        before = sum(process.cpu_times()[:2])
        began = time.monotonic()
        tokens = [next(events) for _ in range(350)]
        share = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)
        process.rlimit(psutil.RLIMIT_NOFILE, limits)

    assert len(tokens) == 350
    assert share < 0.2
    assert daemon.read_stream(daemon.accept(prompt="fine")).end.name == "end"


@pytest.mark.fault("F18")
def test_a_queue_of_large_prompts_is_refused_by_its_bytes_before_memory_is_short(make_daemon: MakeDaemon) -> None:
    queue = {"capacity": 100_000, "bytes_max": 32 * 2**20}
    daemon = make_daemon(a_fake_pool(queue=queue, ctx=1_000_000)).start_ready()
    with a_group("memory") as memory:
        memory.set("memory.limit_in_bytes", psutil.Process(daemon.pid).memory_info().rss + 256 * 2**20)
        memory.take(daemon.pid)
        busy = daemon.accept(prompt=SLOW, ctx=1_000_000, max_tokens=2_000)
        replies = [daemon.submit(prompt="x" * 900_000, ctx=1_000_000, max_tokens=4) for _ in range(60)]

    refused = [reply.json["reason"] for reply in replies if reply.status == 429]
    assert {reply.status for reply in replies} == {202, 429}
    assert set(refused) == {"queue_bytes"}
    assert daemon.ask("GET", f"/v1/tasks/{busy}").json["state"] == "running"


@pytest.mark.fault("F32")
def test_a_starved_daemon_kills_no_worker_and_ends_each_deadline_once(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(timeouts={"idle_ms": 2_000})).start_ready()
    worker = daemon.pool("tiny")["pid"]
    with a_group("cpu") as cpu, daemon.silence():
        cpu.set("cpu.cfs_period_us", 100_000)
        cpu.set("cpu.cfs_quota_us", 5_000)
        cpu.take(daemon.pid)
        running = daemon.accept(prompt=SLOW, max_tokens=150)
        waiting = daemon.accept(prompt="late", deadline_ms=300)
        ends = [daemon.read_stream(task_id).end for task_id in (running, waiting)]

    assert ends[0].name == "end"
    assert (ends[1].data["code"], ends[1].data["reason"]) == ("DECODE_TIMEOUT", "deadline")
    assert daemon.pool("tiny")["pid"] == worker


@pytest.mark.fault("F33")
def test_a_daemon_that_stood_still_expires_nothing_but_what_was_due(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(timeouts={"wall_ms": 120_000, "idle_ms": 60_000})).start_ready()
    running = daemon.accept(prompt=SLOW, max_tokens=400)
    due = daemon.accept(prompt="due", deadline_ms=round(FROZEN_S * 500))
    later = [daemon.accept(prompt=f"later {number}", deadline_ms=60_000, max_tokens=4) for number in range(5)]
    with a_group("freezer") as freezer, daemon.silence():
        freezer.take(daemon.pid)
        freezer.set("freezer.state", "FROZEN")
        threading.Event().wait(FROZEN_S)
        freezer.set("freezer.state", "THAWED")
        streams = [daemon.read_stream(task_id) for task_id in (running, due, *later)]

    assert [stream.end.name for stream in streams] == ["end", "error", *["end"] * 5]
    assert streams[1].end.data["reason"] == "deadline"


@pytest.mark.fault("F34")
@pytest.mark.parametrize("jump_s", [3_600, -3_600, 86_400, -86_400])
def test_a_wall_clock_that_jumps_moves_no_deadline_and_no_limit(
    make_daemon: MakeDaemon, tmp_path: Path, jump_s: int
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")
    library = build_preload(ROOT / "tests" / "support" / "wall_clock.c", tmp_path / "wall_clock.so")
    env = {"LD_PRELOAD": str(library), "WALL_CLOCK_FILE": str(clock)}
    daemon = make_daemon(a_fake_pool(), env=env).start_ready()
    running = daemon.accept(prompt=SLOW, max_tokens=200)
    waiting = daemon.accept(prompt="wait", deadline_ms=30_000, max_tokens=4)

    clock.write_text(str(jump_s))
    ends = [daemon.read_stream(task_id).end.name for task_id in (running, waiting)]
    after = daemon.read_stream(daemon.accept(prompt="after"))

    assert [*ends, after.end.name] == ["end", "end", "end"]
    assert daemon.wait_terminal(running)["state"] == "ended"
    (jump,) = wait_until(
        lambda: [line for line in daemon.log_lines() if line["event"] == "the wall clock jumped"],
        what="the jump in the log",
    )
    assert abs(jump["by_s"] - jump_s) < 60


@pytest.mark.fault("F46")
def test_a_log_that_nobody_reads_holds_up_nothing(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    daemon = make_daemon(a_fake_pool(queue={"capacity": 4_000})).start_ready()
    with contextlib.closing(_Redirected(daemon, pipe)) as redirected:
        before = sum(daemon.series("log_lines_dropped_total").values())
        tasks = [redirected.submit(number) for number in range(QUEUE_MAX // 2 + 500)]
        last = daemon.read_stream(tasks[-1])
        dropped = sum(daemon.series("log_lines_dropped_total").values())

    os.close(reader)
    assert last.end.name == "end"
    assert before == 0
    assert dropped > 0, "each task has two lines"


class _Redirected:
    """A daemon in a new life whose log goes into a pipe that is full."""

    def __init__(self, daemon: Daemon, pipe: Path) -> None:
        self._daemon = daemon
        assert daemon.stop() == 0
        self._pipe = pipe.open("ab", buffering=0)
        os.set_blocking(self._pipe.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            while self._pipe.write(b"x" * 4096):
                pass
        os.set_blocking(self._pipe.fileno(), True)
        daemon.spawn(log=self._pipe)
        wait_until(self._is_ready, within_s=30, what="Ready, though its log is stuck")

    def _is_ready(self) -> bool:
        try:
            status = self._daemon.status()
        except OSError:
            return False
        self._daemon.port = int(self._listening())
        return all(pool["ready"] for pool in status["pools"])

    def _listening(self) -> int:
        ports = [
            each.laddr.port
            for each in psutil.Process(self._daemon.pid).net_connections("tcp4")
            if each.status == psutil.CONN_LISTEN
        ]
        return int(ports[0])

    def submit(self, number: int) -> str:
        return self._daemon.accept(prompt=f"n {number}", max_tokens=1)

    def close(self) -> None:
        self._pipe.close()
