"""Starts one process, hardened, from a thread that lives for this one call only. Blocking; watches nothing afterwards.

`no_new_privs` is an attribute of a thread that its children inherit: setting it in the thread that forks needs neither
a `preexec_fn` (unsafe with threads, and it costs vfork) nor a wrapper program in front of the engine. The processors
that it may run on are such an attribute too, and so is its control group in version 1. A limit is an attribute of the
process, so the daemon gives up its own core dumps, which would hold prompts, with the engines'.
"""

import contextlib
import ctypes
import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from supervisor.runtime.cgroups import WorkerGroup
from supervisor.runtime.engine_logs import open_log, write_mark
from supervisor.runtime.private_files import UnsafeStateError
from supervisor.runtime.processes_env import SpawnError, SpawnOrder, SpawnTrouble
from supervisor.runtime.signals import signals_let_through

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
    group: WorkerGroup | None = None
    is_child: ClassVar[bool] = True

    @property
    def pid(self) -> int:
        """Its pid."""
        return self.popen.pid


def launch(order: SpawnOrder, env: Mapping[str, str], *, run: str, group: WorkerGroup | None = None) -> Launched:
    """Start it in a session and process group of its own, output to its log; in a thread of its own (see above).

    With `group`, it is born in that control group, or enters it before it becomes the engine.

    Raises:
        SpawnError: not started; nothing is left of it.
    """
    _give_up_privileges()
    if order.group.pinned and not (group is not None and group.is_pinned):
        with contextlib.suppress(OSError):  # a hint; a hardened unit may forbid the call
            os.sched_setaffinity(0, order.group.pinned)
    log = _open_log(order, run)
    try:
        popen = _popen(order, env, log) if group is None else _popen_inside(order, env, log, group)
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
    return Launched(popen, pidfd, start_ticks(popen.pid), group)


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


def _popen_inside(order: SpawnOrder, env: Mapping[str, str], log: int, group: WorkerGroup) -> subprocess.Popen[bytes]:
    argv = group.entering(order.argv)
    if argv != order.argv and shutil.which(order.argv[0], path=env.get("PATH")) is None:
        return _popen(order, env, log)  # raises: better than a shell that reports it by its status
    try:
        with group.inside():
            return _popen(replace(order, argv=argv), env, log)
    except OSError as error:
        raise SpawnError(
            SpawnTrouble.OTHER, f"the engine's control group cannot be entered: {error.strerror}"
        ) from error


def _popen(order: SpawnOrder, env: Mapping[str, str], log: int) -> subprocess.Popen[bytes]:
    try:
        with signals_let_through():  # an engine must hear that it is to end
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
