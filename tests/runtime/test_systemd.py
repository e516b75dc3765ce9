"""Messages to the service manager, over real datagram sockets."""

import os
import socket
from pathlib import Path

import pytest

from supervisor.runtime.systemd import READY, STOPPING, WATCHDOG, Notifier, status, watchdog_interval_s


def _listen(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(address)
    listener.settimeout(5)
    return listener


def test_messages_arrive_as_one_datagram(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with _listen(path) as listener:
        notifier = Notifier({"NOTIFY_SOCKET": path})
        sent = notifier.send(READY, status("serving 2 pools"))
        notifier.close()

        assert sent
        assert listener.recv(1024) == b"READY=1\nSTATUS=serving 2 pools"


def test_a_socket_in_the_abstract_namespace_is_found(tmp_path: Path) -> None:
    name = f"orchctl-test-{os.getpid()}-{tmp_path.name}"
    with _listen("\0" + name) as listener:
        notifier = Notifier({"NOTIFY_SOCKET": f"@{name}"})
        notifier.send(STOPPING)
        notifier.close()

        assert listener.recv(1024) == b"STOPPING=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_without_a_socket_nothing_is_sent(environ: dict[str, str]) -> None:
    assert not Notifier(environ).send(READY)


def test_a_manager_that_is_gone_or_full_costs_the_message_only(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with _listen(path):
        notifier = Notifier({"NOTIFY_SOCKET": path})
        outcomes = [notifier.send(WATCHDOG) for _ in range(5_000)]
    (tmp_path / "notify").unlink()
    gone = notifier.send(WATCHDOG)
    notifier.close()
    closed = notifier.send(WATCHDOG)

    assert outcomes[0]
    assert not outcomes[-1], "the queue of the socket is full, and send did not wait for room"
    assert not gone
    assert not closed


def test_a_status_is_one_short_line() -> None:
    assert status("a\nREADY=1  b") == "STATUS=a READY=1 b"
    assert len(status("x" * 10_000)) < 300


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "77"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_time(environ: dict[str, str], interval_s: float | None) -> None:
    assert watchdog_interval_s(environ, pid=77) == interval_s
