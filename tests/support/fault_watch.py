"""What must hold after any fault, whatever it was: looked at from outside, by requests, `/proc` and the metrics.

I1 every accepted task has exactly one end, which can be read. I2 no token after it, none missing, none twice. I3 slots,
quotas and queues are empty once nothing is asked for. I4 no orphan, no zombie, no group left. I5 the counters conserve.
I6 memory and descriptors are back where they were. I7 the daemon answered its health within a second all the while.
"""

import contextlib
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.support.daemon import Daemon
from tests.support.footprint import MODEL_FILE, Footprint, footprint, steady
from tests.support.health_prober import HealthProber
from tests.support.waiting import wait_until

RSS_SLACK = 0.05
RSS_SLACK_BYTES = 12 * 2**20
"""A small process grows by its first tasks: finished streams are kept."""
CONNECTIONS_PER_WORKER = 4
"""Beside those of its slots: probes of health and of the slots, a self-test, one that is being closed."""
WORKER_FDS = (MODEL_FILE, "anon_inode")
"""Its model and its pidfd: the worker that a reload keeps for a rollback has them too."""
BASELINE_LOOKS = 5
IDLE_WITHIN_S = 40.0
END_WITHIN_S = 60.0
GONE_WITHIN_S = 15.0

Measure = Callable[[str, float, str], None]


class FaultWatch:
    """Watches one daemon from its first Ready on; `check` is called when the test is over."""

    def __init__(self, daemon: Daemon, measured: Measure) -> None:
        self._daemon = daemon
        self._measured = measured
        self._before: Footprint | None = None
        self._workers_before = 0
        self._prober = HealthProber(daemon)

    def note_ready(self) -> None:
        """The daemon is Ready and idle: what it takes now is the measure."""
        process = self._daemon.process
        if process is None or (self._before is not None and self._before.pid == process.pid):
            return
        self._before = steady([footprint(process.pid) for _ in range(BASELINE_LOOKS)])
        self._workers_before = len(self._daemon.engine_pids())

    @contextlib.contextmanager
    def silence_allowed(self) -> Iterator[None]:
        """While inside, the daemon is the victim and need not answer."""
        with self._prober.paused():
            yield

    def check(self) -> None:
        """All seven; AssertionError by name. A daemon that the test has ended is looked at for what it left."""
        self._prober.close()
        process = self._daemon.process
        if process is not None and process.poll() is None:
            self._check_running(process.pid)
            self._check_ends()
        try:
            wait_until(lambda: not left_behind(self._daemon), within_s=GONE_WITHIN_S)
        except AssertionError:
            raise AssertionError(f"I4: left behind {left_behind(self._daemon)}") from None
        assert self._daemon.groups_left() == 0, "I4: a control group is left"

    def _check_running(self, pid: int) -> None:
        assert self._prober.slow == [], f"I7: health took {self._prober.slow} s"
        self._measured("health within", self._prober.slowest_s * 1_000, "ms")
        self._end_all()
        wait_until(self._is_idle, within_s=IDLE_WITHIN_S, what=f"I3: idle ({self._busy()})")
        self._check_counters()
        self._check_zombies(pid)
        if self._before is not None and self._before.pid == pid:
            self._check_footprint(self._before)

    def _check_zombies(self, pid: int) -> None:
        """I4: one that has just ended is reaped in a moment; one that stays is not."""
        lasting = zombies_of(pid)

        def are_reaped() -> bool:
            lasting.intersection_update(zombies_of(pid))
            return not lasting

        wait_until(are_reaped, within_s=GONE_WITHIN_S, what="I4: the reaping of zombies")

    def _check_ends(self) -> None:
        """I4: a daemon that is told to stop does."""
        try:
            self._daemon.end()
        except subprocess.TimeoutExpired as error:
            raise AssertionError("I4: the daemon did not end") from error

    def _end_all(self) -> None:
        """I1, I2."""
        for task_id, headers in self._daemon.accepted.items():
            self._daemon.ask("POST", f"/v1/tasks/{task_id}/cancel", headers=headers)
        for task_id, headers in self._daemon.accepted.items():

            def is_over(task_id: str = task_id, headers: dict[str, str] = headers) -> bool:
                view: dict[str, Any] = self._daemon.ask("GET", f"/v1/tasks/{task_id}", headers=headers).json
                return view.get("state") in {"ended", "failed"}

            wait_until(is_over, within_s=END_WITHIN_S, what=f"I1: the end of {task_id}")
            if headers == self._daemon.headers:
                self._check_stream(task_id)

    def _check_stream(self, task_id: str) -> None:
        """I2: `Stream.check` looks for gaps, repeats and what follows an end."""
        try:
            self._daemon.read_stream(task_id)
        except AssertionError as error:
            raise AssertionError(f"I2: {task_id}: {error}") from error

    def _busy(self) -> dict[str, Any]:
        status = self._daemon.status()
        pools = {
            pool["pool_id"]: (pool["metrics"]["slots_busy"], pool["metrics"]["waiting"]) for pool in status["pools"]
        }
        tenants = {each["tenant"]: (each["jobs"], each["waiting"], each["memory_bytes"]) for each in status["tenants"]}
        return {**pools, **tenants}

    def _is_idle(self) -> bool:
        return not any(any(figures) for figures in self._busy().values())

    def _check_counters(self) -> None:
        """I5."""
        total = {
            name: sum(self._daemon.series(f"tasks_{name}_total").values())
            for name in ("enqueued", "finished", "canceled", "dropped")
        }
        alive = sum(self._daemon.series("tasks_alive").values())
        assert total["enqueued"] == total["finished"] + total["canceled"] + total["dropped"] + alive, f"I5: {total}"

    def _check_footprint(self, before: Footprint) -> None:
        """I6."""
        pools = self._daemon.status()["pools"]
        connections_max = sum(pool["metrics"]["slots_total"] + CONNECTIONS_PER_WORKER for pool in pools)
        rss_max = before.rss * (1 + RSS_SLACK) + RSS_SLACK_BYTES

        def heavier() -> str:
            now = footprint(before.pid)
            workers = max(0, len(self._daemon.engine_pids()) - self._workers_before)
            grown = now.grown(before, connections_max) - Counter(dict.fromkeys(WORKER_FDS, workers))
            found = [f"{kind} +{count}" for kind, count in grown.items()]
            return ", ".join([*found, f"RSS {now.rss_mib:.1f} MiB"] if now.rss > rss_max else found)

        try:
            wait_until(lambda: not heavier(), within_s=IDLE_WITHIN_S)
        except AssertionError:
            raise AssertionError(f"I6: {heavier()} after {before}") from None
        after = footprint(before.pid)
        self._measured("fds", after.fds.total() - before.fds.total(), "")
        self._measured("RSS", after.rss_mib - before.rss_mib, "MiB")


def zombies_of(pid: int) -> set[int]:
    """Children that have ended and that nobody asked about."""
    found = set()
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() == psutil.STATUS_ZOMBIE:
                found.add(child.pid)
    return found


def left_behind(daemon: Daemon) -> dict[int, str]:
    """Processes that an ended daemon should have taken with it: engines, and whatever they have forked."""
    mark = f"{daemon.folder}/".encode()
    engines = set(daemon.engine_pids())
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            command = (entry / "cmdline").read_bytes()
            if mark in command or int(entry.name) in engines:
                found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found
