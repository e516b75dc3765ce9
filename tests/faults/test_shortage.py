"""The host denies the daemon descriptors, threads or files while everything is asked of it; then all is as before.

Whoever was connected before is answered all the while; what needs something new is refused, or waits.
"""

import contextlib
import errno
import http.client
import json
import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.control_groups import a_group
from tests.support.daemon import Daemon, UnixConnection, a_request
from tests.support.pools import a_fake_pool, a_model
from tests.support.small_disks import build_preload
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
SHORT_S = 5.0
"""Two looks at the devices at least."""
INTS = struct.Struct("3i")


class Line:
    """A connection that stays open."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> tuple[int, dict[str, Any]]:
        """Status and answer."""
        payload = None if body is None else json.dumps(body)
        self._connection.request(method, path, payload, {"Content-Type": "application/json"} if payload else {})
        answer = self._connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if "json" in answer.headers["Content-Type"] else {}


@contextlib.contextmanager
def few_descriptors(daemon: Daemon, free: int) -> Iterator[None]:
    """So many descriptors can be had at a time."""
    limits = psutil.Process(daemon.pid).rlimit(psutil.RLIMIT_NOFILE)
    leave_descriptors(daemon, free)
    try:
        yield
    finally:
        psutil.Process(daemon.pid).rlimit(psutil.RLIMIT_NOFILE, limits)


def leave_descriptors(daemon: Daemon, free: int) -> None:
    """So many can be had from now on, beside those that are given back."""
    process = psutil.Process(daemon.pid)
    used = {int(each.name) for each in Path(f"/proc/{process.pid}/fd").iterdir()}
    unused = (number for number in range(len(used) + free + 1) if number not in used)
    process.rlimit(psutil.RLIMIT_NOFILE, ([*unused][free], process.rlimit(psutil.RLIMIT_NOFILE)[1]))


@contextlib.contextmanager
def no_threads(daemon: Daemon) -> Iterator[None]:
    """Neither a thread nor a process can be started."""
    with a_group("pids") as pids:
        pids.take(daemon.pid)
        pids.set("pids.max", 1)
        try:
            yield
        finally:
            pids.set("pids.max", "max")


def ask_everything(daemon: Daemon, data: Line, control: Line) -> list[tuple[int, dict[str, Any]]]:
    """Tasks, and every kind of change; what came of them. The worker of the second pool is killed in between."""
    _, health = data.ask("GET", "/v1/pools/right/health")
    asked = [
        *(data.ask("POST", "/v1/tasks", a_request(model_ref=name, max_tokens=4)) for name in ("left", "right")),
        data.ask("GET", "/metrics"),
        control.ask("GET", "/v1/status"),
        control.ask("GET", "/v1/plan"),
        control.ask("POST", "/v1/plan", {"pool_id": "left", "new_model_ref": "right"}),
        control.ask("POST", "/v1/pools/left/reload", {"new_model_ref": "right"}),
        control.ask("POST", "/v1/config/reload", {}),
        control.ask("POST", "/v1/leases", {"devices": ["gpu:1"], "for_ms": 2_000}),
    ]
    os.kill(daemon.pid, signal.SIGHUP)
    with contextlib.suppress(ProcessLookupError, TypeError):  # stopped for the lease
        os.kill(health["pid"], signal.SIGKILL)
    asked.append(control.ask("POST", "/v1/pools/left/canary", {"new_model_ref": "right", "percent": 10.0}))
    return asked


def survive(
    daemon: Daemon,
    shortage: AbstractContextManager[None],
    upgrade: int | None = None,
    tighten: Callable[[], None] = lambda: None,
) -> None:
    """Everything is asked in a shortage; then both pools are Ready, nothing is under way, and nothing broke.

    `tighten` takes away what the worker that was killed in between gave back, before the upgrade is asked for.
    """
    data = Line(http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=20))
    control = Line(UnixConnection(str(daemon.socket_path)))
    assert [data.ask("GET", "/healthz")[0], control.ask("GET", "/healthz")[0]] == [200, 200]
    running = daemon.accept(model_ref="left", prompt="[[slow_ms@20]]", max_tokens=250)
    slowest = 0.0
    with daemon.silence(), shortage:
        until_s = time.monotonic() + SHORT_S
        answers = ask_everything(daemon, data, control)
        if upgrade is not None:
            wait_until(
                lambda: data.ask("GET", "/v1/pools/right/health")[1]["pid"] is None, what="the end of the worker"
            )
            tighten()
            assert control.ask("POST", "/v1/upgrade", {"deadline_ms": 0})[0] == upgrade
        while time.monotonic() < until_s:
            began_s = time.monotonic()
            assert data.ask("GET", "/healthz")[0] == 200
            slowest = max(slowest, time.monotonic() - began_s)
            data.ask("POST", "/v1/tasks", a_request(model_ref="left", max_tokens=2))
            threading.Event().wait(0.05)

    wait_until(lambda: not daemon.ask_control("GET", "/v1/leases").json["leases"], within_s=30, what="the lease's end")
    daemon.wait_ready()
    assert [answer for _, answer in answers if "failed to answer" in answer.get("message", "")] == []
    assert slowest < 1.0
    assert daemon.read_stream(running).end.name == "end"
    assert [daemon.read_stream(daemon.accept(model_ref=name)).end.name for name in ("left", "right")] == ["end"] * 2
    data.close()
    control.close()
    lines = daemon.log_lines()
    assert [line for line in lines if line["level"] == "critical" or "exception" in line] == []


def a_host(make_daemon: MakeDaemon, folder: Path, **given: Any) -> Daemon:
    models = {"models": {**a_model(folder, "left"), **a_model(folder, "right", seed=2)}}
    pools = (a_fake_pool("left", devices=[0], model="left"), a_fake_pool("right", devices=[1], model="right"))
    return make_daemon(*pools, settings=models, simulate="2x8GiB", **given).start_ready()


@pytest.mark.fault("F15")
@pytest.mark.parametrize("free", [0, 2])
def test_no_descriptor_breaks_nothing_that_runs(make_daemon: MakeDaemon, tmp_path: Path, free: int) -> None:
    daemon = a_host(make_daemon, tmp_path)
    survive(daemon, few_descriptors(daemon, free), upgrade=400, tighten=lambda: leave_descriptors(daemon, free))


@pytest.mark.fault("F16")
def test_no_thread_and_no_fork_breaks_nothing_that_runs(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    daemon = a_host(make_daemon, tmp_path)
    survive(daemon, no_threads(daemon), upgrade=400)


@pytest.mark.fault("F53")
@pytest.mark.parametrize(("share", "code"), [(100, errno.EIO), (30, errno.ENOMEM)])
def test_calls_that_open_something_fail_for_a_while(
    make_daemon: MakeDaemon, tmp_path: Path, share: int, code: int
) -> None:
    orders = tmp_path / "orders"
    orders.write_bytes(INTS.pack(0, 0, 0))
    library = build_preload(ROOT / "tests" / "support" / "failing_opens.c", tmp_path / "failing_opens.so")
    daemon = a_host(make_daemon, tmp_path, env={"LD_PRELOAD": str(library), "OPENS_FILE": str(orders)})
    with orders.open("r+b") as file, mmap.mmap(file.fileno(), INTS.size) as page:

        @contextlib.contextmanager
        def failing() -> Iterator[None]:
            page[:] = INTS.pack(share, code, 0)
            yield
            failed = INTS.unpack(page[:])[2]
            page[:] = INTS.pack(0, 0, failed)

        survive(daemon, failing())
        assert INTS.unpack(page[:])[2] > 10
