"""Looks at the host: ports, disks, limits, clock, control groups. Judges nothing, changes nothing."""

import ctypes
import os
import resource
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from orchctl.doctor.facts import ClockFact, DiskFact, FileFact, LimitFact, PortFact

SHM = Path("/dev/shm")  # noqa: S108  (it is what engines use)
CGROUPS = Path("/sys/fs/cgroup")
_TIMEX_BYTES = 208
_TIME_ERROR = 5
_LISTEN = "LISTEN"


def file_fact(path: Path) -> FileFact | None:
    """Who may do what with a file; None where there is none, or it cannot be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return FileFact(path=str(path), mode=found.st_mode & 0o7777, uid=found.st_uid, gid=found.st_gid)


def is_seen(path: Path) -> bool:
    """Whether something is there that this user may look at; `Path.exists` raises where he may not."""
    try:
        path.stat()
    except OSError:
        return False
    return True


def port_fact(host: str, port: int) -> PortFact:
    """Who listens where the daemon would. It is bound for a moment to see, where nobody answers for it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            pid = _listener(port)
            name = f"{_name(pid)} (pid {pid})" if pid else f"a process of somebody else ({error.strerror})"
            return PortFact(host=host, port=port, holder=name, pid=pid)
    return PortFact(host=host, port=port, holder=None, pid=None)


def _listener(port: int) -> int | None:
    import psutil  # noqa: PLC0415  (only the doctor needs it)

    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return None
    pids = [each.pid for each in connections if each.status == _LISTEN and each.laddr and each.laddr[1] == port]
    known = [pid for pid in pids if pid]
    # systemd keeps the listener open beside the daemon that it handed it to.
    return max(known, default=None)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "a process"


def disk_facts(folders: Iterable[Path]) -> tuple[DiskFact, ...]:
    """The file systems below these folders, each once; of a folder that is missing the one above counts."""
    found: dict[int, DiskFact] = {}
    for folder in folders:
        there = next(each for each in (folder, *folder.parents) if is_seen(each))
        sizes = os.statvfs(there)
        found.setdefault(
            there.stat().st_dev,
            DiskFact(
                path=str(there),
                free_bytes=sizes.f_bavail * sizes.f_frsize,
                inodes_free=sizes.f_favail,
                inodes_total=sizes.f_files,
            ),
        )
    return tuple(found.values())


def limit_fact(daemon_pid: int | None) -> LimitFact:
    """The limits of the daemon where it may be looked at, else of this process."""
    kinds = (resource.RLIMIT_NOFILE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_CORE)
    if daemon_pid is not None:
        try:
            soft = [resource.prlimit(daemon_pid, kind)[0] for kind in kinds]
            return LimitFact(of="the daemon", open_files=soft[0], locked_bytes=soft[1], core_bytes=soft[2])
        except (OSError, ValueError):
            pass
    soft = [resource.getrlimit(kind)[0] for kind in kinds]
    return LimitFact(of="this shell", open_files=soft[0], locked_bytes=soft[1], core_bytes=soft[2])


def shm_bytes() -> int | None:
    """The size of /dev/shm; None where it is not a file system of its own."""
    if not SHM.is_mount():
        return None
    sizes = os.statvfs(SHM)
    return sizes.f_blocks * sizes.f_frsize


def clock_fact(state_dir: Path) -> ClockFact:
    """What the kernel says of the clock (adjtimex), and how far in the future the state folder reaches."""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    answer = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    try:
        newest = max((each.stat().st_mtime for each in state_dir.iterdir()), default=None)
    except OSError:
        newest = None
    return ClockFact(
        is_synchronized=None if answer < 0 else answer != _TIME_ERROR,
        newest_state_ahead_s=None if newest is None else newest - time.time(),
    )


def cgroup_facts(daemon_pid: int | None) -> tuple[int | None, tuple[str, ...] | None]:
    """The version of control groups, and the controllers in the daemon's own group, where there is one to see."""
    if not CGROUPS.is_dir():
        return None, None
    if not is_seen(CGROUPS / "cgroup.controllers"):
        return 1, None
    if daemon_pid is None:
        return 2, None
    try:
        own = Path(f"/proc/{daemon_pid}/cgroup").read_text().strip().rpartition("::")[2]
        return 2, tuple((CGROUPS / own.lstrip("/") / "cgroup.controllers").read_text().split())
    except OSError:
        return 2, None
