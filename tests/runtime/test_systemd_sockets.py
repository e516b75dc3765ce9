"""Sockets that systemd passes, by name; and a watchdog that is silent while the event loop is blocked."""

import asyncio
import contextlib
import socket
import threading
from pathlib import Path

import pytest

from supervisor.runtime.systemd import Notifier, passed_sockets
from supervisor.upkeep import keep_watchdog


def test_descriptors_are_found_by_name_and_the_variables_are_gone() -> None:
    environ = {"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "orchctl-http:orchctl-control", "X": "y"}

    assert passed_sockets(environ, pid=7) == {"orchctl-http": 3, "orchctl-control": 4}
    assert environ == {"X": "y"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_PID": "8", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a"},
        {"LISTEN_PID": "7", "LISTEN_FDS": "x", "LISTEN_FDNAMES": "a"},
        {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "a"},
    ],
    ids=["none", "somebody else's", "no number", "no pid"],
)
def test_what_is_not_for_us_is_nothing(environ: dict[str, str]) -> None:
    assert passed_sockets(environ, pid=7) == {}


def test_a_name_that_comes_twice_keeps_its_first_descriptor() -> None:
    environ = {"LISTEN_PID": "7", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:a"}

    assert passed_sockets(environ, pid=7) == {"a": 3, "": 5}


async def test_a_blocked_event_loop_pings_no_watchdog(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        keeping = asyncio.create_task(keep_watchdog(Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}), 0.01))
        first = await asyncio.to_thread(manager.recv, 100)
        while_blocked: list[bytes] = []

        def listen() -> None:
            manager.settimeout(0.3)
            with contextlib.suppress(TimeoutError):
                while True:
                    while_blocked.append(manager.recv(100))

        listening = threading.Thread(target=listen)
        listening.start()
        listening.join()  # the loop stands still for as long as somebody listens
        manager.settimeout(5)
        afterwards = await asyncio.to_thread(manager.recv, 100)
        keeping.cancel()

    assert first == afterwards == b"WATCHDOG=1"
    assert len(while_blocked) <= 1
