"""Ends what an engine leaves behind: its process group, its session, and whoever carries its mark in the environment.

An engine's children may outlive it, and those that made a session of their own are in no group of ours any more; what
they inherited tells whose they are. A process is killed through a pidfd that was opened before it was
recognised, so never one that merely got the same pid. Where the worker has a control group, which is named by its mark,
that tells too, and nobody leaves it. Without one, a process that both left the session and overwrote its environment
is not found here. All functions block: in a side thread.
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from supervisor.runtime.processes_env import MARK_NAME

ENVIRON_BYTES_MAX = 1 << 18
AT_ONCE_MAX = 128
UNSURE_LOOKS_MAX = 3
UNSURE_S = 0.01
BLIND_S = 0.1
_GONE_STATES = b"ZX"

Recognise = Callable[[int], bool]


def of_engine(group: int, mark: str) -> Recognise:
    """Recognises what one engine started. `group` is its pid, which must not have been waited for yet."""
    needle = f"{MARK_NAME}={mark}".encode()
    return lambda pid: group in _group_and_session(pid) or needle in _environ(pid) or is_in_group(pid, mark)


def of_mark(mark: str) -> Recognise:
    """Recognises what one engine started, where its pid may belong to somebody else by now."""
    needle = f"{MARK_NAME}={mark}".encode()
    return lambda pid: needle in _environ(pid) or is_in_group(pid, mark)


def of_instance(instance: str, *, spared: Collection[str] = ()) -> Recognise:
    """Recognises what any engine of this daemon, or of an earlier one in its place, started; not the `spared` marks."""
    needle = f"{MARK_NAME}={instance}.".encode()
    kept = {f"{MARK_NAME}={mark}".encode() for mark in spared}
    return lambda pid: any(entry.startswith(needle) and entry not in kept for entry in _environ(pid))


def found_now(is_ours: Recognise) -> frozenset[int]:
    """The pids of all that is recognised at this moment."""
    return frozenset(pid for pid in _pids() if is_ours(pid))


def is_in_group(pid: int, mark: str) -> bool:
    """Whether a living process is in the control group of the worker with this mark.

    In version 2 one that is only waited for still is, and it is the engine itself whose end is being swept up.
    """
    is_inside = any(group.rpartition(b"/")[2] == mark.encode() for group in _groups(pid))
    return is_inside and bool(_group_and_session(pid))


def _groups(pid: int) -> list[bytes]:
    """Its control groups, in every hierarchy; none where it is gone."""
    try:
        return Path(f"/proc/{pid}/cgroup").read_bytes().splitlines()
    except OSError:
        return []


def sweep(is_ours: Recognise, *, deadline_s: float) -> tuple[int, ...]:
    """Kill all that is recognised until there is none, for `deadline_s` at most; the pids that would not go.

    In the middle of an exec a process has no environment to be recognised by. While there is one without, it is looked
    again, a few times only: some programs have none.

    Raises:
        OSError: for all that time the processes could not be listed; usually there is no descriptor left.
    """
    deadline = time.monotonic() + deadline_s
    looks_left = UNSURE_LOOKS_MAX
    while True:
        with contextlib.ExitStack() as stack:
            try:
                found = _open_all(is_ours, stack)
            except OSError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(BLIND_S)
                continue
            for pidfd in found.values():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            if time.monotonic() >= deadline or not (found or (looks_left and _is_any_unsure())):
                return tuple(found)
            _wait_gone(list(found.values()), deadline)
        if not found:
            looks_left -= 1
            time.sleep(UNSURE_S)


def _open_all(is_ours: Recognise, stack: contextlib.ExitStack) -> dict[int, int]:
    """Pids and pidfds of a bounded number of processes that are ours and alive."""
    found: dict[int, int] = {}
    for pid in _pids():
        if len(found) == AT_ONCE_MAX:
            break
        if not is_ours(pid):  # cheap first look; the one that counts is made with the pidfd in hand
            continue
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(pid)
            stack.callback(os.close, pidfd)
            if is_ours(pid):
                found[pid] = pidfd
    return found


def _wait_gone(pidfds: list[int], deadline: float) -> None:
    for pidfd in pidfds:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(max(0.0, deadline - time.monotonic()) * 1000)


def _pids() -> Iterator[int]:
    own = os.getpid()
    for name in os.listdir("/proc"):  # noqa: PTH208  (Path.iterdir makes thousands of objects for names)
        if name.isdigit() and int(name) != own:
            yield int(name)


def _group_and_session(pid: int) -> tuple[int, ...]:
    """Process group and session of a living process; nothing where it is gone or only waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ()
    return () if fields[0] in _GONE_STATES else (int(fields[2]), int(fields[3]))


def _is_any_unsure() -> bool:
    """Whether some process that is no kernel thread has no environment now."""
    for pid in _pids():
        with contextlib.suppress(OSError), Path(f"/proc/{pid}/environ").open("rb") as file:
            if not file.read(1) and _group_and_session(pid):
                Path(f"/proc/{pid}/exe").readlink()  # OSError: a kernel thread, or gone
                return True
    return False


def _environ(pid: int) -> list[bytes]:
    """Empty where the process is gone, waited for, or not ours to read."""
    try:
        with Path(f"/proc/{pid}/environ").open("rb") as file:
            return file.read(ENVIRON_BYTES_MAX).split(b"\0")
    except OSError:
        return []
