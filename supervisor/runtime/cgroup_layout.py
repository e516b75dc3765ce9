"""Where this process stands in the control groups of its host: pure, over the texts of /proc.

Both versions exist in the field, and both at once: version 1 has a hierarchy for each controller, version 2 one for
all. Decides nothing about which is used (`cgroups` does).
"""

import os
from dataclasses import dataclass
from pathlib import Path

OWN_CGROUP = Path("/proc/self/cgroup")
OWN_MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One hierarchy and the group in it that this process is in. Version 2 has no `controllers` of its own here."""

    version: int
    controllers: frozenset[str]
    folder: Path


def read_hierarchies(cgroup: str, mountinfo: str) -> tuple[Hierarchy, ...]:
    """The hierarchies that are mounted here, out of /proc/self/cgroup and /proc/self/mountinfo.

    A group that lies outside of what is mounted (another namespace's) is left out, as is what cannot be read.
    """
    mounts = [mount for line in mountinfo.splitlines() if (mount := _mount(line)) is not None]
    found = []
    for line in cgroup.splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        version = 1 if names else 2
        controllers = frozenset(names.split(",")) if names else frozenset()
        for mount in mounts:
            if mount.version != version or not controllers <= mount.controllers:
                continue
            folder = _below(mount, path)
            if folder is not None:
                found.append(Hierarchy(version, controllers, folder))
                break
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Mount:
    version: int
    controllers: frozenset[str]
    root: str
    point: str


def _mount(line: str) -> _Mount | None:
    """proc_pid_mountinfo(5): id, parent, device, root, mount point, options, tags, -, type, source, super options."""
    head, separator, tail = line.partition(" - ")
    fields, kinds = head.split(), tail.split()
    if not separator or len(fields) < 5 or len(kinds) < 3 or kinds[0] not in {"cgroup", "cgroup2"}:
        return None
    version = 2 if kinds[0] == "cgroup2" else 1
    controllers = frozenset(kinds[2].split(",")) if version == 1 else frozenset()
    return _Mount(version, controllers, _plain(fields[3]), _plain(fields[4]))


def _plain(field: str) -> str:
    """Spaces and the like are written as octal escapes."""
    return field.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def _below(mount: _Mount, path: str) -> Path | None:
    relative = os.path.relpath(path, mount.root)
    if relative.startswith(".."):
        return None
    return Path(os.path.normpath(Path(mount.point) / relative))
