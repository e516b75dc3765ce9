"""What is known of a host. Plain values; None where it could not be found out or does not apply.

Sizes are bytes, versions are text as they were read, modes are permission bits.
"""

from msgspec import Struct


class FileFact(Struct, frozen=True, kw_only=True):
    """A file or folder that is there."""

    path: str
    mode: int
    uid: int
    gid: int


class VramHolder(Struct, frozen=True, kw_only=True):
    """A process that has memory on a GPU. `is_ours`: of an engine of the daemon that runs."""

    gpu: int
    pid: int
    name: str
    used_bytes: int | None
    is_ours: bool


class Gpu(Struct, frozen=True, kw_only=True):
    """One GPU as NVML shows it."""

    index: int
    name: str
    is_persistent: bool | None


class DriverFacts(Struct, frozen=True, kw_only=True):
    """The NVIDIA driver: `module` is the version in the kernel, `library` that of libnvidia-ml, `trouble` its error."""

    module: str | None = None
    library: str | None = None
    trouble: str | None = None
    is_mismatch: bool = False
    gpus: tuple[Gpu, ...] = ()
    holders: tuple[VramHolder, ...] = ()
    has_uvm: bool = False
    nodes: tuple[FileFact, ...] = ()


class DaemonFacts(Struct, frozen=True, kw_only=True):
    """The daemon that answers on the control socket."""

    pid: int
    version: str
    simulated: str | None
    causes: tuple[str, ...] = ()


class PortFact(Struct, frozen=True, kw_only=True):
    """The listening port of the config. `holder` names who has it, with its pid; None where it is free."""

    host: str
    port: int
    holder: str | None
    pid: int | None


class DiskFact(Struct, frozen=True, kw_only=True):
    """The file system below a folder of the daemon. `inodes_total` is 0 where the system counts none."""

    path: str
    free_bytes: int
    inodes_free: int
    inodes_total: int


class EngineFact(Struct, frozen=True, kw_only=True):
    """A program that pools start. `version` is its own first line; `trouble` says why it cannot be started."""

    program: str
    pools: tuple[str, ...]
    version: str | None = None
    trouble: str | None = None


class LimitFact(Struct, frozen=True, kw_only=True):
    """Limits of the daemon, else of this shell; -1 is none. `of` says whose."""

    of: str
    open_files: int
    locked_bytes: int
    core_bytes: int


class ClockFact(Struct, frozen=True, kw_only=True):
    """The wall clock. `newest_state_ahead_s`: by how much the youngest file of the state folder lies in the future."""

    is_synchronized: bool | None
    newest_state_ahead_s: float | None


class UnitFacts(Struct, frozen=True, kw_only=True):
    """The service. `differing` are its files that an install would write anew."""

    has_systemd: bool
    is_installed: bool
    is_enabled: bool
    differing: tuple[str, ...] = ()


class HostFacts(Struct, frozen=True, kw_only=True):
    """Everything. `service_uid` and `service_gids` are of whom the daemon runs as, or would."""

    config: str
    config_problems: tuple[str, ...] | None
    daemon: DaemonFacts | None
    daemon_trouble: str | None
    driver: DriverFacts
    ports: tuple[PortFact, ...]
    disks: tuple[DiskFact, ...]
    state_dir: FileFact | None
    keys_file: FileFact | None
    engines: tuple[EngineFact, ...]
    limits: LimitFact
    shm_bytes: int | None
    clock: ClockFact
    units: UnitFacts
    user: str
    service_uid: int | None
    service_gids: tuple[int, ...]
    cgroup_version: int | None
    cgroup_controllers: tuple[str, ...] | None
