"""What the facts about the host itself mean: ports, limits, disks, clock, control groups. Pure."""

from orchctl.doctor.facts import DiskFact, HostFacts
from orchctl.doctor.findings import Finding, failure, ok, warning

GIB = 2**30
MIB = 2**20
OPEN_FILES_MIN = 4096
"""A stream, its engine's connection and some room: 1,000 readers fit."""
LOCKED_BYTES_MIN = 64 * MIB
SHM = "/dev/shm"  # noqa: S108  (it is what engines use)
SHM_BYTES_MIN = GIB
DISK_FREE_LOW = GIB
DISK_FREE_MIN = 100 * MIB
INODES_FREE_MIN = 1_000
CLOCK_AHEAD_S_MAX = 60.0
CONTROLLERS = ("memory", "pids", "cpu", "cpuset")


def judge_port(facts: HostFacts) -> list[Finding]:
    """The port is free, or the daemon has it, or systemd has it for the daemon."""
    findings = []
    for port in facts.ports:
        where = f"{port.host}:{port.port}"
        ours = {1} | ({facts.daemon.pid} if facts.daemon is not None else set())
        if port.holder is None:
            findings.append(ok("port", f"{where} is free"))
        elif port.pid in ours:
            findings.append(ok("port", f"{where} is ours ({port.holder})"))
        else:
            fix = f"stop it (`ps -fp {port.pid}`)" if port.pid else f"run `ss -ltnp 'sport = :{port.port}'` as root"
            text = f"{where} is taken by {port.holder}, so the daemon cannot listen there"
            findings.append(failure("port", text, f"{fix}, or choose another listen.port"))
    return findings


def judge_cgroup(facts: HostFacts) -> list[Finding]:
    """Engines are limited and accounted for in control groups of version 2."""
    if facts.cgroup_version is None:
        return [
            warning(
                "cgroup",
                "control groups are not mounted: engines cannot be told apart",
                "mount -t cgroup2 none /sys/fs/cgroup",
            )
        ]
    if facts.cgroup_version == 1:
        text = "control groups are of version 1: engines are limited only where the daemon may make groups there"
        fix = "see worker_groups in `orchctl status -o json`, or boot with systemd.unified_cgroup_hierarchy=1"
        return [warning("cgroup", text, fix)]
    if facts.cgroup_controllers is None:
        return [ok("cgroup", "control groups are of version 2")]
    missing = [name for name in CONTROLLERS if name not in facts.cgroup_controllers]
    if missing:
        text = f"the daemon was not given the control group controllers {', '.join(missing)}"
        return [warning("cgroup", text, "orchctl install, then systemctl restart orchctl")]
    return [ok("cgroup", "control groups are of version 2 and delegated to the daemon")]


def judge_limits(facts: HostFacts) -> list[Finding]:
    """Files for streams, locked memory for fast copies to a GPU, no core files full of prompts."""
    limits, found = facts.limits, []
    if 0 <= limits.open_files < OPEN_FILES_MIN:
        text = f"{limits.of} may open {limits.open_files} files, and many streams need more"
        found.append(warning("limits", text, f"ulimit -n {OPEN_FILES_MIN * 16}; in a unit LimitNOFILE=65536"))
    if 0 <= limits.locked_bytes < LOCKED_BYTES_MIN:
        text = f"{limits.of} may lock {limits.locked_bytes // 1024} KiB: copies to a GPU are slower"
        found.append(warning("limits", text, "ulimit -l unlimited; in a unit LimitMEMLOCK=infinity"))
    if limits.core_bytes != 0:
        text = f"{limits.of} may leave core files, which hold keys and prompts"
        found.append(warning("limits", text, "ulimit -c 0; in a unit LimitCORE=0"))
    files = "files without limit" if limits.open_files < 0 else f"{limits.open_files} files"
    return found or [ok("limits", f"{limits.of} has room: {files}")]


def judge_shm(facts: HostFacts) -> list[Finding]:
    """Engines on several GPUs exchange data there."""
    if facts.shm_bytes is None:
        fix = f"mount -t tmpfs -o size=50% tmpfs {SHM}"
        return [failure("shm", f"{SHM} is not mounted: engines on several GPUs cannot start", fix)]
    if facts.shm_bytes < SHM_BYTES_MIN:
        text = f"{SHM} has {facts.shm_bytes // MIB} MiB, which is little for engines on several GPUs"
        return [warning("shm", text, f"mount -o remount,size=50% {SHM}")]
    return [ok("shm", f"{SHM} has {facts.shm_bytes // GIB} GiB")]


def judge_disks(facts: HostFacts) -> list[Finding]:
    """A full disk refuses tasks before they are accepted."""
    return [_judge_disk(disk) for disk in facts.disks]


def _judge_disk(disk: DiskFact) -> Finding:
    fix = f"make room: du -xh --max-depth=2 {disk.path} | sort -h | tail"
    if disk.free_bytes < DISK_FREE_MIN:
        return failure("disk", f"{disk.path} has {disk.free_bytes // MIB} MiB left: tasks are refused", fix)
    if disk.inodes_total and disk.inodes_free < INODES_FREE_MIN:
        return failure("disk", f"{disk.path} has {disk.inodes_free} inodes left: tasks are refused", fix)
    if disk.free_bytes < DISK_FREE_LOW:
        return warning("disk", f"{disk.path} has {disk.free_bytes // MIB} MiB left", fix)
    return ok("disk", f"{disk.path} has {disk.free_bytes // GIB} GiB left")


def judge_clock(facts: HostFacts) -> list[Finding]:
    """Expiry of keys and times in logs go by the wall clock; deadlines of tasks do not."""
    ahead_s = facts.clock.newest_state_ahead_s
    found = []
    if ahead_s is not None and ahead_s > CLOCK_AHEAD_S_MAX:
        text = f"the clock was set back: a file of the state folder is {ahead_s:.0f} s in the future"
        found.append(warning("clock", text, "timedatectl set-ntp true"))
    if facts.clock.is_synchronized is False:
        text = "the clock is not synchronized: keys expire at the wrong time"
        found.append(warning("clock", text, "timedatectl set-ntp true"))
    return found or [
        ok("clock", "the clock is synchronized" if facts.clock.is_synchronized else "the clock is plausible")
    ]
