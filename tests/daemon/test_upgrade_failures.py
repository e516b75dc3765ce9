"""Upgrades that go wrong late: the service goes on, or is begun anew; engines are never left alone."""

import contextlib
import os
import signal
import site
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.daemon.conftest import MakeDaemon
from tests.daemon.test_upgrade import life_of, upgrade, wait_refused
from tests.support.daemon import ROOT, Daemon
from tests.support.pools import a_fake_pool
from tests.support.waiting import wait_until

SLOW = {"prompt": "x [[slow_ms@20]]", "max_tokens": 300, "determinism": "best_effort"}
"""Cannot be cut: an upgrade waits for it."""
EXIT_NOT_REPLACED = 71
WATCHDOG_S = 15.0
"""What the unit of the daemon allows."""


def an_interpreter(folder: Path, *, at_check: str = "true") -> Path:
    """A Python of its own, whose program can be spoilt. `at_check` runs once it was tried."""
    folder.mkdir()
    (folder / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    (folder / "bin").mkdir()
    script = folder / "bin" / "py"
    script.write_text(
        "#!/bin/bash\n"
        f'[ "$1" = {sys.executable} ] && shift\n'
        f'run() {{ exec -a "$0" {Path(sys.executable).resolve()} "$@"; }}\n'
        'case "$*" in *--check*) ;; *) run "$@";; esac\n'
        f'(run "$@") || exit; {at_check}\n'
    )
    script.chmod(0o755)
    return script


def a_pool_of_its_own() -> dict[str, Any]:
    """Its engine keeps to the tests' interpreter."""
    pool = a_fake_pool()
    command = [sys.executable, *pool["launch"]["command"][1:]]
    return {**pool, "launch": {**pool["launch"], "command": command}}


def its_path() -> dict[str, str]:
    return {"PYTHONPATH": ":".join([str(ROOT), *site.getsitepackages()])}


def start_by(daemon: Daemon, interpreter: Path) -> Daemon:
    daemon.spawn(by=(str(interpreter),))
    return daemon.wait_serving().wait_ready()


def wrote(daemon: Daemon, text: str) -> bool:
    return text in daemon.log_text()


def upgrade_behind_a_task(daemon: Daemon) -> None:
    daemon.accept(**SLOW)
    wait_until(lambda: daemon.pool("tiny")["metrics"]["slots_busy"] == 1, what="the task that is waited for")
    reply = daemon.ask_control("POST", "/v1/upgrade", {"deadline_ms": 20_000})
    assert reply.status == 202, reply.body


@pytest.mark.fault("F41")
def test_a_config_that_breaks_while_the_daemon_comes_to_rest_refuses_the_upgrade(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    life, whole = life_of(daemon), daemon.config_path.read_text()
    upgrade_behind_a_task(daemon)
    daemon.config_path.write_text("pools: [")
    cause = wait_refused(daemon)
    end = daemon.read_stream(daemon.accept()).end.name
    daemon.config_path.write_text(whole)
    next_life = upgrade(daemon)

    assert cause.startswith("The new program would not start: ")
    assert end == "end"
    assert life_of(daemon) == next_life != life


@pytest.mark.fault("F41")
def test_a_program_that_goes_while_the_daemon_comes_to_rest_refuses_the_upgrade(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    interpreter = an_interpreter(tmp_path / "py")
    daemon = start_by(make_daemon(a_pool_of_its_own(), env=its_path()), interpreter)
    upgrade_behind_a_task(daemon)
    interpreter.unlink()

    assert wait_refused(daemon) == "The new program cannot be started: No such file or directory."
    assert daemon.read_stream(daemon.accept()).end.name == "end"


@pytest.mark.fault("F41")
def test_where_the_next_image_cannot_be_executed_the_daemon_asks_to_be_started_again(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    interpreter = an_interpreter(tmp_path / "py", at_check='rm "$0"')
    daemon = start_by(make_daemon(a_pool_of_its_own(), env=its_path()), interpreter)
    assert daemon.process is not None
    pids = daemon.engine_pids()
    daemon.ask_control("POST", "/v1/upgrade", {"deadline_ms": 0})
    code = daemon.process.wait(20)
    daemon.start_ready()

    assert code == EXIT_NOT_REPLACED
    assert "RestartPreventExitStatus=78\n" in (ROOT / "systemd" / "orchctl.service").read_text()
    assert daemon.engine_pids() == pids


@pytest.mark.fault("F41")
def test_a_config_that_breaks_at_the_last_moment_is_not_taken_up_by_the_next_image(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    spoil = f"echo 'pools: [' > {tmp_path / 'pools.yaml'}"
    interpreter = an_interpreter(tmp_path / "py", at_check=spoil)
    daemon = make_daemon(a_pool_of_its_own(), env=its_path())
    whole = daemon.config_path.read_text()
    start_by(daemon, interpreter)
    pids = daemon.engine_pids()
    upgrade(daemon)
    broken, causes = daemon.config_path.read_text(), daemon.status()["causes"]
    end = daemon.wait_ready().read_stream(daemon.accept()).end.name
    daemon.config_path.write_text(whole)

    assert broken == "pools: [\n"
    assert any("pools.yaml is not in force" in cause for cause in causes)
    assert end == "end"
    assert daemon.engine_pids() == pids
    assert yaml.safe_load(whole)


@pytest.mark.parametrize("moment", ["the daemon replaces itself", "daemon stopped"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.fault("F42")
def test_a_stop_while_one_image_gives_way_to_another_is_obeyed(
    make_daemon: MakeDaemon, moment: str, number: signal.Signals
) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    assert daemon.process is not None
    with half_a_request(daemon):
        daemon.ask_control("POST", "/v1/upgrade", {"deadline_ms": 0})
        wait_until(lambda: moment in daemon.log_text(), what=moment)
        daemon.process.send_signal(number)
        code = daemon.process.wait(20)

    assert code == 0
    assert daemon.engine_pids() == []


@contextlib.contextmanager
def half_a_request(daemon: Daemon) -> Iterator[None]:
    """Its answer is in progress, and so the first image takes its time to close."""
    with socket.create_connection(("127.0.0.1", daemon.port)) as client:
        head = "POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        client.sendall(head.encode())
        daemon.ask("GET", "/healthz")  # answered after the other was taken up
        yield


def test_a_hang_up_while_one_image_gives_way_to_another_harms_nothing(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    assert daemon.process is not None
    life = life_of(daemon)
    daemon.ask_control("POST", "/v1/upgrade", {"deadline_ms": 0})
    for moment in ("the daemon replaces itself", "daemon stopped"):
        wait_until(partial(wrote, daemon, moment), what=moment)
        daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: life_of(daemon) != life, what="the next life")

    assert daemon.process.poll() is None
    assert daemon.read_stream(daemon.accept()).end.name == "end"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(20)
        yield sock


def test_the_service_manager_hears_of_the_daemon_all_the_while(
    make_daemon: MakeDaemon, manager: socket.socket, tmp_path: Path
) -> None:
    env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
    daemon = make_daemon(a_fake_pool(), env=env).start_ready()
    daemon.ask_control("POST", "/v1/upgrade", {"deadline_ms": 0})
    heard: list[tuple[float, str]] = []
    while sum("READY=1" in text for _, text in heard) < 2:
        heard.append((time.monotonic(), manager.recv(4096).decode()))
    began = next(number for number, (_, text) in enumerate(heard) if "RELOADING=1" in text)
    pings_s = [at_s for at_s, text in heard[began:] if "WATCHDOG=1" in text]

    assert sum("EXTEND_TIMEOUT_USEC=60000000" in text for _, text in heard[began:]) == 3
    assert max(after - before for before, after in pairwise(pings_s)) < WATCHDOG_S
    assert "READY=1" in heard[-1][1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.fault("F42")
def test_a_signal_after_the_loop_of_one_image_and_before_the_exec_of_the_next_is_not_lost(
    make_daemon: MakeDaemon, number: signal.Signals
) -> None:
    daemon = make_daemon(a_fake_pool())
    with a_stuck_log(daemon) as drain:
        life = life_of(daemon)
        daemon.ask_control("POST", "/v1/upgrade", {"deadline_ms": 0})
        wait_until(lambda: not has_event_loop(daemon), what="the moment in which only the log is still being written")
        assert daemon.process is not None
        daemon.process.send_signal(number)
        drain()
        if number is signal.SIGHUP:
            wait_until(lambda: next_life(daemon, life), what="the next life")
            assert daemon.stop() == 0
        else:
            assert daemon.process.wait(20) == 0

    assert daemon.engine_pids() == []


@pytest.mark.fault("F46")
def test_a_log_that_nobody_reads_holds_up_neither_an_upgrade_nor_a_stop(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool())
    with a_stuck_log(daemon):
        life = life_of(daemon)
        with daemon.silence():
            daemon.ask_control("POST", "/v1/upgrade", {"deadline_ms": 0})
            wait_until(lambda: next_life(daemon, life), within_s=20, what="the next life")
        code = daemon.stop()

    assert code == 0
    assert daemon.engine_pids() == []


@contextlib.contextmanager
def a_stuck_log(daemon: Daemon) -> Iterator[Callable[[], None]]:
    """A Ready daemon whose log goes into a pipe that is full; inside, what is given reads it from then on."""
    read_end, write_end = os.pipe()
    reading = threading.Thread(target=drain, args=(read_end,), daemon=True)
    try:
        with open(os.dup(write_end), "wb") as pipe:  # noqa: PTH123  (a descriptor)
            daemon.spawn(log=pipe)
        wait_until(lambda: is_ready(daemon), within_s=30, what="Ready")
        fill(write_end)
        yield reading.start
    finally:
        os.close(write_end)
        if reading.ident is None:
            os.close(read_end)
        daemon.close()


def drain(pipe: int) -> None:
    while os.read(pipe, 1 << 16):
        pass
    os.close(pipe)


def fill(pipe: int) -> None:
    """By an opening of its own, for not to block is a setting of an opening, and the daemon's shall block."""
    fd = os.open(f"/proc/self/fd/{pipe}", os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while os.write(fd, b"x" * 64):
            pass
    os.close(fd)


def is_ready(daemon: Daemon) -> bool:
    try:
        return all(pool["ready"] for pool in daemon.status()["pools"])
    except OSError:
        return False


def next_life(daemon: Daemon, life: str) -> bool:
    try:
        return life_of(daemon) != life
    except OSError:
        return False


def has_event_loop(daemon: Daemon) -> bool:
    assert daemon.process is not None
    links = []
    for entry in Path(f"/proc/{daemon.process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(entry.readlink()))
    return "anon_inode:[eventpoll]" in links
