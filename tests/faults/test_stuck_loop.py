"""An event loop that is blocked: the watchdog of systemd hears nothing, ends the daemon, and nothing is lost."""

import signal
import socket
from pathlib import Path

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.pools import ROOT, a_fake_pool
from tests.support.small_disks import build_preload
from tests.support.waiting import wait_until

WATCHDOG_USEC = 1_000_000
PINGS = 5


@pytest.mark.fault("F50")
def test_a_blocked_loop_is_silent_and_whoever_restarts_it_finds_every_task(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    library = build_preload(ROOT / "tests" / "support" / "stuck_loop.c", tmp_path / "stuck_loop.so")
    flag, address = tmp_path / "stuck", tmp_path / "notify"
    env = {"LD_PRELOAD": str(library), "STUCK_LOOP_FLAG": str(flag)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(WATCHDOG_USEC / 1e6)
        notify = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": str(WATCHDOG_USEC)}
        daemon = make_daemon(a_fake_pool(), env={**env, **notify}).start_ready()
        pings = [manager.recv(4096) for _ in range(PINGS)]
        tasks = [daemon.accept(prompt=f"{number} [[slow_ms@10]]", max_tokens=50, seed=number) for number in range(3)]
        with daemon.silence():
            flag.touch()
            wait_until(lambda: is_silent(manager), within_s=20, what="a watchdog that hears nothing")
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGABRT)
            code = daemon.process.wait(20)
            flag.unlink()
            daemon.start_ready()

    assert len(pings) == PINGS
    assert code == -signal.SIGABRT
    assert [daemon.read_stream(task_id).end.name for task_id in tasks] == ["end"] * 3


def is_silent(manager: socket.socket) -> bool:
    """Whether nothing came for as long as systemd waits."""
    try:
        manager.recv(4096)
    except TimeoutError:
        return True
    return False
