"""A control group for each worker, where the daemon may make one: nothing that an engine starts can leave it.

Version 1: a folder in the hierarchies of `memory` and `pids` (and of `cpuset`, `cpu` where they are asked for). The
thread that forks the engine enters first, and its child is born inside: there, threads can be moved one by one.
Version 2: threads cannot, so the child enters by itself before it becomes the engine (`entering`). Controllers are used
there only where the daemon was started in a subgroup of a delegated group (`Delegate=yes`, `DelegateSubgroup=`):
otherwise they would have to be enabled on the group that systemd puts the next daemon into, which then fails while an
engine still runs. Without them a group still holds its processes together.

Without any group everything else works, and `summary` says so. All functions block for a few file operations.
"""

import contextlib
import os
import re
import signal
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.runtime.cgroup_layout import OWN_CGROUP, OWN_MOUNTS, Hierarchy, read_hierarchies

NONE = "no control groups: none can be made here, workers are told apart by process group, session and environment"
CPU_PERIOD_US = 100_000
REMOVE_WITHIN_S = 2.0
_REMOVE_PAUSE_S = 0.01
_PREFIX = "orchctl-"
_ALWAYS = ("memory", "pids")
_ON_DEMAND = ("cpuset", "cpu")
_KILLS = re.compile(r"^(?:oom_kill|oom_group_kill) (\d+)$", re.MULTILINE)
_ENTER = 'echo 0 > "$0" || exit 125; exec "$@"'


class CgroupError(Exception):
    """A limit that was asked for cannot be set here. One sentence."""


@dataclass(frozen=True, slots=True)
class GroupWish:
    """What a worker's group is to enforce: bytes of host memory, processors' worth of time, numbers of processors.

    The first two are promises to an operator, the last one is a hint.
    """

    memory_max: int | None = None
    cpus: float | None = None
    pinned: frozenset[int] = frozenset()


NO_WISH = GroupWish()


@dataclass(frozen=True, slots=True)
class WorkerGroup:
    """The folders of one worker, by controller; "" stands for a version 2 group."""

    folders: Mapping[str, Path]
    is_pinned: bool = False

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Version 1: the calling thread is in the group meanwhile, and what it forks is born inside.

        Raises:
            OSError: it could not enter.
        """
        folders = [] if "" in self.folders else list(self.folders.values())
        with contextlib.ExitStack() as opened:
            ways_out = [
                opened.enter_context((each.parent.parent / "tasks").open("wb", buffering=0)) for each in folders
            ]
            try:  # the way out is open before it goes in: there may be no descriptor to open it then
                for folder in folders:
                    (folder / "tasks").write_text("0")
                yield
            finally:  # out again at once: the kernel must never look for a victim in a group that the daemon is in
                for way_out in ways_out:
                    with contextlib.suppress(OSError):
                        way_out.write(b"0")

    def entering(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """Version 2: the command that enters and then becomes `argv`, with the same pid."""
        unified = self.folders.get("")
        return argv if unified is None else ("/bin/sh", "-c", _ENTER, str(unified / "cgroup.procs"), *argv)

    def pids(self) -> frozenset[int]:
        """All processes inside now; never the daemon, one of whose threads may be starting an engine."""
        found: set[int] = set()
        for folder in self.folders.values():
            with contextlib.suppress(OSError):
                found.update(map(int, (folder / "cgroup.procs").read_text().split()))
        return frozenset(found - {os.getpid()})

    def oom_kills(self) -> int | None:
        """Processes of it that the kernel killed for want of memory; None where nobody counts."""
        for folder, name in (
            (self.folders.get("memory"), "memory.oom_control"),
            (self.folders.get(""), "memory.events"),
        ):
            if folder is not None:
                with contextlib.suppress(OSError):
                    return sum(map(int, _KILLS.findall((folder / name).read_text())))
        return None

    def kill(self) -> None:
        """SIGKILL to all inside, in one step where the kernel has it (version 2 since Linux 5.14)."""
        unified = self.folders.get("")
        if unified is not None:
            with contextlib.suppress(OSError):
                (unified / "cgroup.kill").write_text("1")
                return
        for pid in self.pids():
            with contextlib.suppress(OSError):
                self._kill_one(pid)

    def _kill_one(self, pid: int) -> None:
        pidfd = os.pidfd_open(pid)
        try:
            if pid in self.pids():  # looked at again with the pidfd in hand: never one that merely got the same pid
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)

    def remove(self) -> bool:
        """Remove the folders once they are empty, within `REMOVE_WITHIN_S`; False where somebody stays in."""
        until_s = time.monotonic() + REMOVE_WITHIN_S
        while True:
            left = [folder for folder in self.folders.values() if not _remove(folder)]
            if not left:
                return True
            if time.monotonic() >= until_s:
                return False
            time.sleep(_REMOVE_PAUSE_S)


@dataclass(slots=True)
class Cgroups:
    """Makes, finds and removes the groups of one daemon's workers. A worker's group is named by its mark.

    `roots` are the folders in which this daemon's own folder lies, by controller; "" for version 2. Empty: no groups.
    """

    instance: str
    roots: Mapping[str, Path] = field(default_factory=dict)
    controllers: frozenset[str] = frozenset()
    """What version 2 offers in its one folder."""

    @property
    def summary(self) -> str:
        """One sentence for the log and the status."""
        if not self.roots:
            return NONE
        if "" not in self.roots:
            return f"control groups of version 1: {', '.join(sorted(self.roots))}"
        offered = ", ".join(sorted(self.controllers)) or "without controllers, for the daemon has no delegated subgroup"
        return f"control groups of version 2: {offered}"

    def make(self, mark: str, wish: GroupWish = NO_WISH) -> WorkerGroup | None:
        """The group of a new worker; None where there are none and nothing was asked for.

        Raises:
            CgroupError: a limit that was asked for cannot be had.
        """
        self._require(wish)
        names = [name for name in self.roots if name not in _ON_DEMAND or _wants(wish, name)]
        folders: dict[str, Path] = {}
        try:
            for name in names:
                folders[name] = self._make_one(name, mark)
            group = WorkerGroup(folders, is_pinned=self._pin(folders, wish))
            _limit(group, wish)
        except OSError as error:
            WorkerGroup(folders).remove()
            if wish.memory_max is not None or wish.cpus is not None:
                raise CgroupError(f"the limits of this pool cannot be set: {error.strerror}") from error
            return None
        return group if folders else None

    def _require(self, wish: GroupWish) -> None:
        for name, value in (("memory", wish.memory_max), ("cpu", wish.cpus)):
            if value is not None and name not in self.roots and name not in self.controllers:
                raise CgroupError(
                    f"a limit of {name} is configured, and this host gives the daemon no such control group"
                )

    def _home(self, name: str) -> Path:
        return self.roots[name] / f"{_PREFIX}{self.instance}"

    def _make_one(self, name: str, mark: str) -> Path:
        home = self._home(name)
        home.mkdir(exist_ok=True)
        if name == "cpuset":  # a new one has no processors, and takes nobody in
            _copy_set(self.roots[name], home)
        if name == "" and self.controllers:
            _enable(home, self.controllers)
        folder = home / mark
        folder.mkdir(exist_ok=True)
        return folder

    def _pin(self, folders: Mapping[str, Path], wish: GroupWish) -> bool:
        """Whether the group keeps the worker on the processors it is to run on."""
        folder = folders.get("cpuset") or (folders.get("") if "cpuset" in self.controllers else None)
        if folder is None or not wish.pinned:
            return False
        if "cpuset" in folders:
            _copy_set(folder.parent, folder)
        try:
            (folder / "cpuset.cpus").write_text(",".join(map(str, sorted(wish.pinned))))
        except OSError:
            return False
        return True

    def find(self, mark: str) -> WorkerGroup | None:
        """The group of a worker that an earlier daemon started."""
        folders = {name: self._home(name) / mark for name in self.roots}
        known = {name: folder for name, folder in folders.items() if folder.is_dir()}
        return WorkerGroup(known) if known else None

    def leftovers(self, *, spared: Collection[str] = ()) -> tuple[WorkerGroup, ...]:
        """Groups of workers of an earlier daemon; not those of the `spared` marks."""
        marks: set[str] = set()
        for name in self.roots:
            with contextlib.suppress(OSError):
                marks.update(path.name for path in self._home(name).iterdir() if path.is_dir())
        found = (self.find(mark) for mark in sorted(marks - set(spared)))
        return tuple(group for group in found if group is not None)

    def close(self) -> None:
        """Remove the daemon's own folders, where no worker is left in them."""
        for name in self.roots:
            _remove(self._home(name))


def open_cgroups(instance: str) -> Cgroups:
    """What this process may make."""
    try:
        hierarchies = read_hierarchies(OWN_CGROUP.read_text(), OWN_MOUNTS.read_text())
    except OSError:
        return Cgroups(instance)
    return choose(instance, hierarchies)


def choose(instance: str, hierarchies: tuple[Hierarchy, ...]) -> Cgroups:
    """Version 1 where the memory of a group is counted there, else version 2, else none."""
    old = {
        name: each.folder
        for each in hierarchies
        for name in each.controllers
        if name in (*_ALWAYS, *_ON_DEMAND) and _may_make(each.folder)
    }
    if any(name in old for name in _ALWAYS):
        return Cgroups(instance, old)
    unified = next((each.folder for each in hierarchies if each.version == 2), None)
    if unified is None:
        return Cgroups(instance)
    if _is_delegated(unified.parent):
        return Cgroups(instance, {"": unified.parent}, _offered(unified.parent))
    return Cgroups(instance, {"": unified} if _may_make(unified) else {})


def _may_make(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK) and os.access(folder / "cgroup.procs", os.W_OK)


def _is_delegated(folder: Path) -> bool:
    """Whether systemd left this group to the service, which has put nobody into it (DelegateSubgroup=)."""
    try:
        if (folder / "cgroup.procs").read_text().strip() or not _may_make(folder):
            return False
    except OSError:
        return False
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            return os.getxattr(folder, name) == b"1"
    return False


def _offered(folder: Path) -> frozenset[str]:
    """The controllers of a delegated group that its subgroups can have."""
    wanted = frozenset((*_ALWAYS, *_ON_DEMAND)) & frozenset((folder / "cgroup.controllers").read_text().split())
    return _enable(folder, wanted)


def _enable(folder: Path, controllers: frozenset[str]) -> frozenset[str]:
    """Let the subgroups of a version 2 group have these; those that they have."""
    for name in sorted(controllers):
        with contextlib.suppress(OSError):
            (folder / "cgroup.subtree_control").write_text(f"+{name}")
    return controllers & frozenset((folder / "cgroup.subtree_control").read_text().split())


def _wants(wish: GroupWish, name: str) -> bool:
    return bool(wish.pinned) if name == "cpuset" else wish.cpus is not None


def _copy_set(source: Path, target: Path) -> None:
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (target / name).read_text().strip():
            (target / name).write_text((source / name).read_text().strip())


def _limit(group: WorkerGroup, wish: GroupWish) -> None:
    """Raises OSError where a limit cannot be written."""
    memory, cpu, unified = (group.folders.get(name) for name in ("memory", "cpu", ""))
    quota = None if wish.cpus is None else max(1_000, round(wish.cpus * CPU_PERIOD_US))
    if unified is not None:
        with contextlib.suppress(OSError):  # half an engine is of no use
            (unified / "memory.oom.group").write_text("1")
    if wish.memory_max is not None:
        if memory is not None:
            (memory / "memory.limit_in_bytes").write_text(str(wish.memory_max))
            with contextlib.suppress(OSError):  # only where the kernel counts swap
                (memory / "memory.memsw.limit_in_bytes").write_text(str(wish.memory_max))
        elif unified is not None:
            (unified / "memory.max").write_text(str(wish.memory_max))
    if quota is not None:
        if cpu is not None:
            (cpu / "cpu.cfs_period_us").write_text(str(CPU_PERIOD_US))
            (cpu / "cpu.cfs_quota_us").write_text(str(quota))
        elif unified is not None:
            (unified / "cpu.max").write_text(f"{quota} {CPU_PERIOD_US}")


def _remove(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
