"""Takes hold of an engine process that this image did not start: the child of an earlier one, or of nobody any more.

A pidfd is opened first and who it is looked at afterwards, so a pid that was given away is never taken for the engine.
Only a parent learns an exit status: of an engine whose daemon died it stays unknown. Kills nothing.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from supervisor.runtime.cgroups import WorkerGroup
from supervisor.runtime.processes_env import MARK_NAME
from supervisor.runtime.worker_records import process_facts


@dataclass(frozen=True, slots=True)
class Adopted:
    """A running engine. `is_child`: its pid is not given away before this process waits for it."""

    pid: int
    pidfd: int
    start_ticks: int
    is_child: bool
    group: WorkerGroup | None = None


@dataclass(frozen=True, slots=True)
class Exit:
    """A process has ended. `returncode` as subprocess gives it; None where only its parent could know."""

    returncode: int | None


def take_hold(pid: int, start_ticks: int, group: WorkerGroup | None = None) -> Adopted | None:
    """The process of this pid that began at `start_ticks`; None where it is gone or another one."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    facts = process_facts(pid)
    if facts is None or facts.start_ticks != start_ticks:
        os.close(pidfd)
        return None
    return Adopted(pid, pidfd, start_ticks, facts.parent == os.getpid(), group)


def read_exit(pidfd: int) -> Exit | None:
    """How the process ended, once its pidfd is readable; None: not yet. It is not waited for: see `reap`."""
    try:
        status = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return Exit(None)
    if status is None:
        return None
    return Exit(status.si_status if status.si_code == os.CLD_EXITED else -status.si_status)


def reap(pidfd: int) -> None:
    """Wait for a process that has ended, if it is a child: then its pid may be given away."""
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)


def reap_strangers() -> None:
    """Wait for every child that has ended. Only before the first start: all children are then of an earlier image."""
    with contextlib.suppress(ChildProcessError):
        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG) is not None:
            pass


def carries_mark(pid: int, mark: str) -> bool:
    """Whether the process has inherited this mark of an engine; False where it cannot be read."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"{MARK_NAME}={mark}".encode() in entries
