"""Ends the engine processes that an earlier daemon left behind, without blocking the loop.

A process is signalled only through a pidfd, and only where it was proven ours after that pidfd was opened: it is in the
session of the recorded process, which still runs with the recorded start time; or that one is gone and the process
carries the worker's random key in its environment or arguments. A pid or a process group alone proves nothing.
"""

import asyncio
import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path

from supervisor.runtime.worker_records import WorkerRecord, current_boot_id, is_same_process, process_facts

KILL_WAIT_S = 10.0
"""After SIGKILL a process may still be held in the kernel, by a driver; then it is reported and not waited for."""
SWEEPS_MAX = 8
"""Looks for processes that were forked while their session was being ended."""


class OrphanEnd(StrEnum):
    """What became of it: nothing of ours ran, it ended by SIGTERM, it took SIGKILL, or not even that has ended it."""

    GONE = "gone"
    ENDED = "ended"
    KILLED = "killed"
    STUCK = "stuck"


async def end_orphan(record: WorkerRecord, grace_s: float, *, kill_wait_s: float = KILL_WAIT_S) -> OrphanEnd:
    """End the recorded process and its session: SIGTERM, up to `grace_s` seconds, SIGKILL.

    Raises:
        OSError: it is ours but may not be signalled.
    """
    return await asyncio.to_thread(_end, record, grace_s, kill_wait_s)


def _end(record: WorkerRecord, grace_s: float, kill_wait_s: float) -> OrphanEnd:
    if record.boot_id != current_boot_id():
        return OrphanEnd.GONE
    with contextlib.ExitStack() as pins:
        pinned: dict[int, int] = {}
        _pin_session(record, pinned, pins)
        if not pinned:
            return OrphanEnd.GONE
        _signal_all(pinned.values(), signal.SIGTERM)
        _wait_all(pinned.values(), grace_s)
        end = OrphanEnd.ENDED
        deadline = time.monotonic() + kill_wait_s
        for _ in range(SWEEPS_MAX):
            _pin_session(record, pinned, pins)
            alive = [fd for fd in pinned.values() if not _has_ended(fd)]
            if not alive:
                return end
            end = OrphanEnd.KILLED
            _signal_all(alive, signal.SIGKILL)
            _wait_all(alive, max(0.0, deadline - time.monotonic()))
        return OrphanEnd.STUCK


def _pin_session(record: WorkerRecord, pinned: dict[int, int], pins: contextlib.ExitStack) -> None:
    """Add a pidfd of each process that is proven ours; one whose pid was pinned before is the same or has ended."""
    for pid in _candidates(record):
        if pid in pinned and not _has_ended(pinned[pid]):
            continue
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        pins.callback(os.close, fd)
        if _is_ours(record, pid):
            pinned[pid] = fd


def _candidates(record: WorkerRecord) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            pid = int(entry.name)
            facts = process_facts(pid)
            if facts is not None and record.pid in (pid, facts.session):
                yield pid


def _is_ours(record: WorkerRecord, pid: int) -> bool:
    facts = process_facts(pid)
    if facts is None or record.pid not in (pid, facts.session):
        return False
    return is_same_process(record) or _carries_key(record, pid)


def _carries_key(record: WorkerRecord, pid: int) -> bool:
    key = record.api_key.encode()
    if not key:
        return False
    for source in ("environ", "cmdline"):
        with contextlib.suppress(OSError):
            if key in Path(f"/proc/{pid}/{source}").read_bytes():
                return True
    return False


def _signal_all(pidfds: Iterable[int], number: signal.Signals) -> None:
    for fd in pidfds:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, number)


def _has_ended(pidfd: int) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(0))


def _wait_all(pidfds: Iterable[int], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    for fd in pidfds:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
