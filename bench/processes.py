"""Processes of a run: started on a CPU of their own, looked at through /proc, ended for sure. Decides nothing."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STOP_S_MAX = 10
LISTEN_S_MAX = 20
POLL_S = 0.002
LOG_TAIL_CHARS = 2000
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cpus:
    """Which CPU runs what: the middle process has one to itself, so that "one core" means one core."""

    middle: int
    engine: int
    load: int


def plan_cpus() -> Cpus:
    """From the CPUs this process may use; on two, engine and load generator share one, on one all do."""
    usable = sorted(os.sched_getaffinity(0))
    return Cpus(usable[0], usable[min(1, len(usable) - 1)], usable[min(2, len(usable) - 1)])


def start(argv: Sequence[str], cpu: int, log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a program pinned to one CPU (its threads and children inherit that), with its output in `log`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        with log.open("ab") as output:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env)
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def running(
    argv: Sequence[str], cpu: int, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program for as long as the block lasts."""
    process = start(argv, cpu, log, env)
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes], signum: int = signal.SIGTERM) -> None:
    """Signal, wait, then SIGKILL; a process that is gone already is fine."""
    if process.poll() is None:
        process.send_signal(signum)
    try:
        process.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the port takes connections. Raises RuntimeError, with the end of `log`, where that does not happen."""
    deadline = time.monotonic() + LISTEN_S_MAX
    while not is_listening(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"nothing listens on {port} (exit status {process.poll()}): {tail_of(log)}")
        time.sleep(POLL_S)


def tail_of(log: Path) -> str:
    """The last lines of a program's output."""
    return log.read_text(errors="replace")[-LOG_TAIL_CHARS:]


def is_listening(port: int) -> bool:
    """Whether somebody accepts on this port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def cpu_s(pid: int) -> float:
    """User and system time of all threads of a process, in seconds; its children are not counted."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def scheduled_s(pid: int) -> float:
    """Time that the threads of a process have had a CPU, in seconds, exact where `cpu_s` has steps of 10 ms."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def rss_mb(pid: int) -> float:
    """Resident memory in units of 10**6 bytes."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / 1e6


def children(pid: int) -> list[int]:
    """Direct children of a process, whichever of its threads started them."""
    found = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for each in found for child in each]


def argument_of(pid: int, name: str) -> str | None:
    """The value after `name` in a process's command line."""
    argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return argv[argv.index(name) + 1] if name in argv else None
