"""The daemon's listening sockets: given by systemd, deleted under it, and what signals do to it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import ROOT, Daemon
from tests.support.fault_watch import Measure
from tests.support.pools import a_fake_pool
from tests.support.waiting import wait_until

WITH_SOCKETS = """
import json, os, sys
fds, names, argv = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3:]
for number, fd in enumerate(fds):
    os.dup2(fd, 3 + number, inheritable=True)
os.environ |= {"LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": names, "LISTEN_PID": str(os.getpid())}
os.execv(argv[0], argv)
"""
"""What systemd does between its fork and its exec."""


@contextmanager
def bound_sockets(folder: Path, port: int = 0) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP and a Unix socket that listen, numbered high enough to be moved to 3 and 4."""
    path = folder / "c.sock"
    with socket.socket() as http, socket.socket(socket.AF_UNIX) as control:
        http.bind(("127.0.0.1", port))
        control.bind(str(path))
        for sock in (http, control):
            sock.listen(64)
            sock.set_inheritable(True)
        yield http, control


def spawn_activated(daemon: Daemon, http: socket.socket, control: socket.socket) -> subprocess.Popen[bytes]:
    fds = [http.fileno(), control.fileno()]
    names = "orchctl-http:orchctl-control"
    daemon.spawn(by=(sys.executable, "-c", WITH_SOCKETS, json.dumps(fds), names), pass_fds=tuple(fds))
    assert daemon.process is not None
    return daemon.process


def test_sockets_of_systemd_are_served_and_outlive_the_daemon(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    daemon = make_daemon(a_fake_pool())
    with bound_sockets(tmp_path) as (http, control):
        spawn_activated(daemon, http, control)
        daemon.wait_serving()
        port = http.getsockname()[1]
        served = daemon.port
        daemon.wait_ready()
        task_id = daemon.accept()
        code = daemon.stop()
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            is_open = True  # nobody answers, but nobody is refused: systemd starts the daemon again
        environ_kept = daemon.socket_path.exists()

    assert served == port
    assert task_id
    assert code == 0
    assert is_open
    assert environ_kept


def test_a_socket_of_systemd_for_another_port_is_refused(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    daemon = make_daemon(settings={"listen": {"port": 1, "socket": str(tmp_path / "c.sock")}})
    with bound_sockets(tmp_path) as (http, control):
        process = spawn_activated(daemon, http, control)

        assert process.wait(20) == 76
    assert "the socket of the service manager is not for 127.0.0.1 port 1" in daemon.log_text()


def test_a_socket_of_systemd_for_another_path_is_refused(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    daemon = make_daemon(settings={"listen": {"port": 0, "socket": str(tmp_path / "other.sock")}})
    with bound_sockets(tmp_path) as (http, control):
        process = spawn_activated(daemon, http, control)

        assert process.wait(20) == 76
    assert "the control socket of the service manager is not at" in daemon.log_text()


@pytest.mark.fault("F54")
def test_a_control_socket_that_was_deleted_is_made_anew(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon().start()
    daemon.socket_path.unlink()
    wait_until(daemon.socket_path.exists, what="the control socket")

    assert daemon.ask_control("GET", "/healthz").status == 200
    assert daemon.stop() == 0
    assert not daemon.socket_path.exists()


@pytest.mark.fault("F54")
@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_took_the_place_of_the_control_socket_is_reported_and_left_alone(
    make_daemon: MakeDaemon, tmp_path: Path, kind: str
) -> None:
    daemon = make_daemon().start()
    target = tmp_path / "target"
    target.write_text("precious")
    daemon.socket_path.unlink()
    if kind == "file":
        daemon.socket_path.write_text("precious")
    else:
        daemon.socket_path.symlink_to(target)
    wait_until(lambda: "the control socket cannot be made anew" in daemon.log_text(), what="the report")
    alive = daemon.ask("GET", "/healthz").status
    code = daemon.stop()

    assert alive == 200
    assert code == 0
    assert daemon.socket_path.read_text() == "precious"
    assert daemon.socket_path.is_symlink() == (kind == "link")


@pytest.mark.fault("F44")
def test_a_storm_of_signals_harms_nothing_and_a_second_term_stops_at_once(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    assert daemon.process is not None
    for number in (*[signal.SIGHUP] * 100, signal.SIGPIPE, signal.SIGWINCH, signal.SIGUSR1, signal.SIGUSR2):
        daemon.process.send_signal(number)
    ends = daemon.read_stream(daemon.accept()).end.name
    daemon.accept(prompt="x [[slow_ms@100]]", max_tokens=400)
    wait_until(lambda: daemon.pool("tiny")["metrics"]["slots_busy"] == 1, what="a running task")
    daemon.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "daemon stops" in daemon.log_text(), what="the first stop")
    began_s = time.monotonic()
    daemon.process.send_signal(signal.SIGTERM)

    assert daemon.process.wait(10) == 0
    assert ends == "end"
    assert time.monotonic() - began_s < 10
    assert daemon.engine_pids() == []


@pytest.mark.fault("F43")
def test_sigterm_under_load_keeps_its_bound_and_what_waits(make_daemon: MakeDaemon, measured: Measure) -> None:
    daemon = make_daemon(a_fake_pool(), settings={"shutdown": {"drain_ms": 1_000}}).start_ready()
    running = daemon.accept(prompt="x [[slow_ms@100]]", max_tokens=400)
    waiting = [daemon.accept(prompt=f"{number}") for number in range(5)]
    with daemon.open_stream(running) as events:
        next(events)
        began_s = time.monotonic()
        code = daemon.stop(within_s=15)
        took_s = time.monotonic() - began_s
        last = list(events)[-1]
    pids = daemon.engine_pids()
    daemon.start_ready()

    measured("ended, with a drain of 1 s, after", took_s, "s")
    assert code == 0
    assert 1.0 <= took_s < 15
    assert pids == []
    assert last.data["code"] == "WORKER_RESET"
    assert [daemon.read_stream(task_id).end.name for task_id in waiting] == ["end"] * 5


def test_check_loads_the_config_and_starts_nothing(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    command = [sys.executable, "-m", "supervisor", "--config", str(daemon.config_path), "--check"]
    ended = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, check=False)

    assert ended.returncode == 0
    assert not (daemon.folder / "state").exists()
