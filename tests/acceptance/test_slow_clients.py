"""Hostile and slow clients in their hundreds against a daemon in its own process: bounds, memory, and what others feel.

Times are measured in pairs of rounds, quiet and attacked in turn, so that a busy machine slows both; the criterion is
on the medians over the rounds.
"""

import contextlib
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.daemon import Daemon
from tests.support.fake_engine_script import Script
from tests.support.hostile_clients import attacking
from tests.support.pools import a_fake_pool, a_model
from tests.support.waiting import wait_until

pytestmark = pytest.mark.accept

ROUNDS = 6
ROUND_S = 5.0
REQUESTS_PER_S = 250
SETTLE_S = 2.0
ATTACKERS = 500
FLOOD = 5000
READERS = 1000
CANCELS = 10_000
FDS_OTHER = 5
"""Descriptors that a daemon opens now and then for itself."""
HEADER_S, BODY_S, STALL_S = 5.0, 10.0, 30.0
LATE_S = 1.5
"""What a busy machine may add to a deadline."""
RATIO_MAX = 1.2
GRAIN_MS = 0.5
"""Below this, a difference of two p99 of a few milliseconds is the scheduler's, not the daemon's."""
MIB = 1024 * 1024
SLOW_KINDS = ("silent", "half_header", "slow_header", "slow_body", "no_reader")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    pool = a_fake_pool(script=Script(token_s=0.0005), queue={"capacity": 4096}, ctx=65_536)
    made = Daemon(tmp_path, {"pools": [pool], "models": a_model(tmp_path)})
    made.start_ready()
    yield made
    made.close()


class Healthy:
    """A client as it should be: one connection, one request at a time."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes = b"GET /v1/tasks?limit=1 HTTP/1.1\r\nHost: t\r\n\r\n") -> float:
        """Milliseconds."""
        began = time.perf_counter()
        self._sock.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._sock.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(body) < size:
            body += self._sock.recv(65536)
        assert head.startswith(b"HTTP/1.1 200"), head
        return (time.perf_counter() - began) * 1000

    def p50_p99_ms(self, round_s: float = ROUND_S) -> tuple[float, float]:
        """Of one round, at a steady rate."""
        times = []
        began = time.perf_counter()
        for number in range(int(round_s * REQUESTS_PER_S)):
            time.sleep(max(began + number / REQUESTS_PER_S - time.perf_counter(), 0))
            times.append(self.ask())
        times.sort()
        return times[len(times) // 2], times[len(times) * 99 // 100]


def process_of(daemon: Daemon) -> psutil.Process:
    assert daemon.process is not None
    return psutil.Process(daemon.process.pid)


@pytest.mark.orch("ORCH-3044")
def test_500_slow_clients_are_cut_and_slow_nobody_down(daemon: Daemon) -> None:
    process = process_of(daemon)
    healthy = Healthy(daemon.port)
    healthy.p50_p99_ms()
    fds, rss = process.num_fds(), process.memory_info().rss
    quiet, attacked = [], []

    for _ in range(ROUNDS):
        quiet.append(healthy.p50_p99_ms())
        with attacking(daemon.port, ATTACKERS, *SLOW_KINDS, over_s=HEADER_S):
            healthy.p50_p99_ms(SETTLE_S)
            attacked.append(healthy.p50_p99_ms())
    grown = process.memory_info().rss - rss

    p99 = [statistics.median(p99 for _, p99 in rounds) for rounds in (quiet, attacked)]
    p50 = [statistics.median(p50 for p50, _ in rounds) for rounds in (quiet, attacked)]
    ratios = [b[1] / a[1] for a, b in zip(quiet, attacked, strict=True)]
    print(
        f"\nquiet/attacked p50 {p50[0]:.2f}/{p50[1]:.2f} ms, p99 {p99[0]:.2f}/{p99[1]:.2f} ms, x{p99[1] / p99[0]:.2f}"
    )
    print(f"per round {[round(ratio, 2) for ratio in ratios]}, RSS {grown / MIB:+.1f} MiB")
    assert p99[1] <= RATIO_MAX * p99[0] + GRAIN_MS
    assert grown < 32 * MIB
    wait_until(lambda: process.num_fds() <= fds, within_s=10, what="the last descriptor's return")


def test_each_kind_of_slow_client_is_cut_at_its_bound(daemon: Daemon) -> None:
    healthy = Healthy(daemon.port)
    bounds = dict(zip(SLOW_KINDS, (HEADER_S, HEADER_S, HEADER_S, BODY_S, STALL_S), strict=True))

    with attacking(daemon.port, ATTACKERS, *SLOW_KINDS) as found:
        over = time.monotonic() + STALL_S + 2 * LATE_S
        while time.monotonic() < over:
            healthy.ask()

    print(f"\n{found}")
    for kind, bound_s in bounds.items():
        assert found[kind]["lost"] >= ATTACKERS // len(SLOW_KINDS)
        assert found[kind]["longest_s"] <= bound_s + LATE_S


def test_a_flood_of_5000_connections_is_capped_and_leaves_the_operator_alone(daemon: Daemon) -> None:
    process = process_of(daemon)
    fds, rss = process.num_fds(), process.memory_info().rss

    with attacking(daemon.port, FLOOD, "idle") as found:
        most_fds, grown = process.num_fds(), process.memory_info().rss - rss
        began = time.monotonic()
        status = daemon.ask_control("GET", "/v1/status")
        control_s = time.monotonic() - began
        reply = daemon.submit()

    print(
        f"\n{most_fds - fds} connections, RSS {grown / MIB:+.1f} MiB, control socket {control_s * 1000:.0f} ms, {found}"
    )
    assert most_fds - fds <= 4096 + 10
    assert (status.status, reply.status) == (200, 202)
    assert control_s < 1.0
    assert found["idle"]["lost"] >= FLOOD - 4096 - 1
    assert grown < 128 * MIB
    wait_until(lambda: process.num_fds() <= fds, within_s=20, what="the last descriptor's return")


class SlowReader:
    """Reads a stream at one byte a second, from a small buffer."""

    def __init__(self, port: int, task_id: str) -> None:
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._sock.settimeout(10)
        self._sock.connect(("127.0.0.1", port))
        self._sock.sendall(f"GET /v1/tasks/{task_id}/stream HTTP/1.1\r\nHost: t\r\n\r\n".encode())

    def read_one(self) -> None:
        """A byte, if there is one: after a cut, what the kernel got before it is still there."""
        with contextlib.suppress(ConnectionError):
            self._sock.recv(1)

    def read_all(self) -> bytes:
        """The whole answer, now at full speed."""
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            chunk = self._sock.recv(65536)
            assert chunk, data[-200:]
            data += chunk
        return data


def test_100_readers_at_a_byte_a_second_hold_nothing(daemon: Daemon) -> None:
    process = process_of(daemon)
    fds, rss = process.num_fds(), process.memory_info().rss
    task_id = daemon.accept(max_tokens=60_000, ctx=65_536, deadline_ms=600_000)
    readers = [SlowReader(daemon.port, task_id) for _ in range(100)]

    began = time.monotonic()
    wait_until(lambda: process.num_fds() >= fds + len(readers) - FDS_OTHER, what="all readers")
    while process.num_fds() > fds + FDS_OTHER and time.monotonic() < began + 150:
        for reader in readers:
            reader.read_one()
        time.sleep(1.0)
    cut_after_s = time.monotonic() - began
    grown = process.memory_info().rss - rss
    view = daemon.wait_terminal(task_id, within_s=120)

    print(f"\nlast slow reader cut after {cut_after_s:.0f} s, RSS {grown / MIB:+.1f} MiB, task {view['state']}")
    assert process.num_fds() <= fds + FDS_OTHER, "the server holds readers that do not read"
    assert grown < 64 * MIB


def test_1000_readers_of_one_task_are_bounded(daemon: Daemon) -> None:
    process = process_of(daemon)
    rss = process.memory_info().rss
    task_id = daemon.accept(max_tokens=200, ctx=65_536)
    readers = [SlowReader(daemon.port, task_id) for _ in range(READERS)]
    view = daemon.wait_terminal(task_id)
    ends = [reader.read_all() for reader in readers]
    grown = process.memory_info().rss - rss

    print(f"\n{READERS} readers, RSS {grown / MIB:+.1f} MiB, {grown / READERS / 1024:.0f} KiB each")
    assert view["state"] == "ended"
    assert {end.count(b"event: end") for end in ends} == {1}
    assert grown < 96 * MIB


def test_10000_cancels_are_answered_and_hold_nothing(daemon: Daemon) -> None:
    process = process_of(daemon)
    task_id = daemon.accept(max_tokens=200, ctx=65_536)
    daemon.wait_terminal(task_id)
    rss = process.memory_info().rss
    cancel = f"POST /v1/tasks/{task_id}/cancel HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n".encode()
    data = bytearray()
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=60) as sock:
        sender = threading.Thread(target=lambda: sock.sendall(cancel * CANCELS))
        sender.start()
        while data.count(b"HTTP/1.1 204 ") < CANCELS:
            chunk = sock.recv(1 << 20)
            assert chunk, data[-500:]
            data += chunk
        sender.join()
    grown = process.memory_info().rss - rss

    print(f"\n{CANCELS} cancels, RSS {grown / MIB:+.1f} MiB")
    assert daemon.ask("GET", "/healthz").status == 200
    assert grown < 32 * MIB
