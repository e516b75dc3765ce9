"""Clients that read slowly, write slowly or only come in their thousands: cut at their bounds, and nobody else waits.

What others feel of it in milliseconds is measured in the acceptance runs; here each client is cut, and nothing stays.
"""

import contextlib
import socket
import threading
import time
from collections import Counter

import psutil
import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon
from tests.support.fake_engine_script import Script
from tests.support.fault_watch import Measure
from tests.support.hostile_clients import attacking
from tests.support.pools import a_fake_pool
from tests.support.waiting import wait_until

READERS = 100
LONG = Script(tokens=("x" * 500,))
LONG_TOKENS = 4_000
"""2 MB: more than the kernel holds for a reader."""
ATTACKERS = 500
FLOOD = 5_000
CONNECTIONS_MAX = 4_096
FDS_OTHER = 10
"""Descriptors that a daemon opens now and then for itself."""
BOUNDS_S = {"silent": 5.0, "half_header": 5.0, "slow_header": 5.0, "slow_body": 10.0, "no_reader": 30.0}
LATE_S = 5.0
"""What a busy machine may add to a deadline; without one a connection stays for good."""
STALL_S = 30.0
CONTROL_S_MAX = 1.0
MIB = 2**20


def serving(make_daemon: MakeDaemon) -> tuple[Daemon, psutil.Process]:
    """A daemon that serves; it is Ready for the watch, which takes its measure then, with `wait_ready` alone."""
    daemon = make_daemon(a_fake_pool(script=LONG, ctx=65_536)).start()
    wait_until(lambda: daemon.pool("tiny")["ready"], within_s=30, what="Ready")
    assert daemon.process is not None
    return daemon, psutil.Process(daemon.process.pid)


def ask_for(daemon: Daemon, seconds: float) -> Counter[int]:
    """A client as others are, for so long: the statuses of its answers."""
    answers: Counter[int] = Counter()
    over_s = time.monotonic() + seconds
    while time.monotonic() < over_s:
        answers[daemon.ask("GET", "/v1/tasks?limit=1").status] += 1
    return answers


class SlowReader:
    """Reads a stream at one byte a second, from a small buffer."""

    def __init__(self, port: int, task_id: str) -> None:
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self._sock.settimeout(10)
        self._sock.connect(("127.0.0.1", port))
        self._sock.sendall(f"GET /v1/tasks/{task_id}/stream HTTP/1.1\r\nHost: t\r\n\r\n".encode())

    def read_one(self) -> None:
        """A byte, if there is one: after a cut, what the kernel got before it is still there."""
        with contextlib.suppress(ConnectionError, BlockingIOError):
            self._sock.recv(1, socket.MSG_DONTWAIT)

    def close(self) -> None:
        self._sock.close()


@pytest.mark.fault("F35")
@pytest.mark.timeout(300)
def test_a_hundred_readers_at_a_byte_a_second_hold_neither_slot_nor_memory(
    make_daemon: MakeDaemon, measured: Measure
) -> None:
    daemon, process = serving(make_daemon)
    daemon.wait_ready()
    fds, rss = process.num_fds(), process.memory_info().rss
    task_id, pause = daemon.accept(max_tokens=LONG_TOKENS, ctx=65_536), threading.Event()
    with contextlib.ExitStack() as crowd:
        readers = [crowd.enter_context(contextlib.closing(SlowReader(daemon.port, task_id))) for _ in range(READERS)]
        began_s = time.monotonic()
        state = daemon.wait_terminal(task_id, within_s=STALL_S)["state"]
        served_s = time.monotonic() - began_s
        other = daemon.read_stream(daemon.accept(prompt="another")).end.name
        grown = process.memory_info().rss - rss
        while process.num_fds() > fds + FDS_OTHER and time.monotonic() < began_s + 150:
            for reader in readers:
                reader.read_one()
            pause.wait(1.0)
        cut_s = time.monotonic() - began_s
        left = process.num_fds() - fds

    measured("last slow reader cut after", cut_s, "s")
    measured("task ended after", served_s, "s")
    assert (state, other) == ("ended", "end"), "the slot does not wait for readers"
    assert left <= FDS_OTHER
    assert grown < 64 * MIB


@pytest.mark.fault("F36")
@pytest.mark.timeout(300)
def test_each_kind_of_slow_client_is_cut_at_its_bound(make_daemon: MakeDaemon, measured: Measure) -> None:
    daemon, _ = serving(make_daemon)
    with attacking(daemon.port, ATTACKERS, *BOUNDS_S):
        ask_for(
            daemon, BOUNDS_S["slow_body"]
        )  # what a first crowd costs stays with the allocator; no later one costs more
    daemon.wait_ready()

    with attacking(daemon.port, ATTACKERS, *BOUNDS_S) as found:
        answers = ask_for(daemon, max(BOUNDS_S.values()) + LATE_S)

    assert set(answers) == {200}
    for kind, bound_s in BOUNDS_S.items():
        measured(f"{kind.replace('_', ' ')} cut after", found[kind]["longest_s"], "s")
        assert found[kind]["lost"] >= ATTACKERS // len(BOUNDS_S), kind
        assert found[kind]["longest_s"] <= bound_s + LATE_S, kind


@pytest.mark.fault("F37")
@pytest.mark.timeout(300)
def test_a_flood_of_connections_is_capped_and_leaves_the_operator_alone(
    make_daemon: MakeDaemon, measured: Measure
) -> None:
    daemon, process = serving(make_daemon)
    with attacking(daemon.port, FLOOD, "idle"):
        pass  # what the first flood costs stays with the allocator; no later one may cost more
    daemon.wait_ready()
    fds, rss = process.num_fds(), process.memory_info().rss

    with attacking(daemon.port, FLOOD, "idle") as found:
        most, grown = process.num_fds() - fds, process.memory_info().rss - rss
        began_s = time.monotonic()
        status = daemon.ask_control("GET", "/v1/status").status
        control_s = time.monotonic() - began_s
        accepted = daemon.submit().status

    measured("connections", most, "")
    measured("control socket within", control_s * 1_000, "ms")
    assert most <= CONNECTIONS_MAX + FDS_OTHER
    assert (status, accepted) == (200, 202)
    assert control_s < CONTROL_S_MAX
    assert found["idle"]["lost"] >= FLOOD - CONNECTIONS_MAX - 1
    assert grown < 128 * MIB
