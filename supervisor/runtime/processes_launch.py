"""Starts one process, hardened, from a thread that lives for this one call only. Blocking; watches nothing afterwards.

`no_new_privs` is an attribute of a thread that its children inherit: setting it in the thread that forks needs neither
a `preexec_fn` (unsafe with threads, and it costs vfork) nor a wrapper program in front of the engine. A limit is an
attribute of the process, so the daemon gives up its own core dumps, which would hold prompts, with the engines'.
"""

import contextlib
import ctypes
import errno
import os
import resource
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from supervisor.runtime.engine_logs import open_log, write_mark
from supervisor.runtime.private_files import UnsafeStateError
from supervisor.runtime.processes_env import SpawnError, SpawnOrder, SpawnTrouble

UMASK = 0o077
OOM_SCORE_ADJ = 500
"""Engines go first when the host runs out of memory: a restart costs less than the queue."""

_PR_SET_NO_NEW_PRIVS = 38
_LIMITS = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
_NOT_EXECUTABLE = frozenset({errno.EACCES, errno.EPERM, errno.ENOEXEC})


@dataclass(frozen=True, slots=True)
class Launched:
    """A child of ours that runs or has run: its pid is not given away before somebody waits for it."""

    popen: subprocess.Popen[bytes]
    pidfd: int
    start_ticks: int


def launch(order: SpawnOrder, env: Mapping[str, str], *, run: str) -> Launched:
    """Start it in a session and process group of its own, output to its log; in a thread of its own (see above).

    Raises:
        SpawnError: not started; nothing is left of it.
    """
    _give_up_privileges()
    log = _open_log(order, run)
    try:
        popen = _popen(order, env, log)
    finally:
        os.close(log)
    try:
        pidfd = os.pidfd_open(popen.pid)
    except OSError as error:
        popen.kill()
        popen.wait()
        raise SpawnError(SpawnTrouble.LIMIT, f"the engine cannot be watched: {error.strerror}") from error
    with contextlib.suppress(OSError):  # best effort: it may be gone already, or the host has no such file
        Path(f"/proc/{popen.pid}/oom_score_adj").write_text(str(OOM_SCORE_ADJ))
    return Launched(popen, pidfd, start_ticks(popen.pid))


def _give_up_privileges() -> None:
    """For this thread's children, and core dumps for the whole process: see the module's docstring."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise SpawnError(SpawnTrouble.OTHER, "the kernel refused no_new_privs for the engine")
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def _open_log(order: SpawnOrder, run: str) -> int:
    try:
        log = open_log(order.log_path)
    except (OSError, UnsafeStateError) as error:
        raise SpawnError(SpawnTrouble.LOG, "the engine's log file cannot be opened") from error
    try:
        write_mark(log, run)
    except OSError:  # a full disk loses the log and not the engine
        return log
    return log


def _popen(order: SpawnOrder, env: Mapping[str, str], log: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            order.argv,
            cwd=order.cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            close_fds=True,
            start_new_session=True,
            umask=UMASK,
        )
    except (OSError, ValueError, IndexError) as error:
        raise _refusal(order, error) from error


def _refusal(order: SpawnOrder, error: Exception) -> SpawnError:
    if not isinstance(error, OSError):  # a NUL byte, or no argv at all
        return SpawnError(
            SpawnTrouble.REFUSED, "the engine's command line or environment cannot be passed to a process"
        )
    binary = Path(order.argv[0]).name
    if error.errno in _LIMITS:
        return SpawnError(SpawnTrouble.LIMIT, f"{binary} was not started: {error.strerror}")
    if str(error.filename) == str(order.cwd):
        return SpawnError(SpawnTrouble.FOLDER_MISSING, f"the working folder of {binary} cannot be entered")
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return SpawnError(SpawnTrouble.BINARY_MISSING, f"the engine's program {binary} was not found")
    if error.errno in _NOT_EXECUTABLE:
        return SpawnError(SpawnTrouble.NOT_EXECUTABLE, f"the engine's program {binary} cannot be executed")
    return SpawnError(SpawnTrouble.OTHER, f"{binary} was not started: {error.strerror}")


def start_ticks(pid: int) -> int:
    """When a process began, in clock ticks since boot: with its pid, who it is. 0 where it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(stat.rpartition(b")")[2].split()[19])
