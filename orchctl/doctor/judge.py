"""The table of checks: what each looks at, and who judges it. The documentation is made from it. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from orchctl import __version__
from orchctl.doctor import judge_gpus, judge_host, judge_service
from orchctl.doctor.facts import HostFacts
from orchctl.doctor.findings import Examination, Finding, Level


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name in the output, what it looks at, and its judge."""

    name: str
    looks_at: str
    judge: Callable[[HostFacts], list[Finding]]


CHECKS = (
    Check("config", "the config can be used", judge_service.judge_config),
    Check(
        "daemon",
        "it answers, is of this version, and has taken up its files",
        lambda facts: judge_service.judge_daemon(facts, __version__),
    ),
    Check("service", "the systemd units are there, current and enabled", judge_service.judge_units),
    Check("user", "the daemon's user exists and is not root", judge_service.judge_user),
    Check("files", "modes and owners of the state folder and the key file", judge_service.judge_files),
    Check("engine", "the programs of the pools exist and start", judge_service.judge_engines),
    Check("driver", "the NVIDIA kernel module and its library, of one version; GPUs", judge_gpus.judge_driver),
    Check("uvm", "the module nvidia_uvm, without which CUDA does not start", judge_gpus.judge_uvm),
    Check("device_nodes", "/dev/nvidia* exist and the daemon's user may use them", judge_gpus.judge_nodes),
    Check("persistence", "persistence mode of each GPU", judge_gpus.judge_persistence),
    Check("vram", "processes of others that hold memory on a GPU", judge_gpus.judge_vram),
    Check("port", "who has the listening port", judge_host.judge_port),
    Check("cgroup", "version and delegation of control groups", judge_host.judge_cgroup),
    Check("limits", "open files, locked memory and core files of the daemon", judge_host.judge_limits),
    Check("shm", "the size of /dev/shm", judge_host.judge_shm),
    Check("disk", "space and inodes below the state and log folders", judge_host.judge_disks),
    Check("clock", "synchronization of the wall clock, and a jump back", judge_host.judge_clock),
)


def examine(facts: HostFacts) -> Examination:
    """Every check, in order."""
    findings = [finding for check in CHECKS for finding in check.judge(facts)]
    return Examination(healthy=all(each.level is not Level.FAILURE for each in findings), findings=findings)
