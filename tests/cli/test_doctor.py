"""`orchctl doctor`: what each fact means, and the facts themselves where a test can make them true."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from orchctl.doctor import host
from orchctl.doctor.driver import is_ours, parse_module
from orchctl.doctor.facts import (
    ClockFact,
    DaemonFacts,
    DiskFact,
    DriverFacts,
    EngineFact,
    FileFact,
    Gpu,
    HostFacts,
    LimitFact,
    PortFact,
    UnitFacts,
    VramHolder,
)
from orchctl.doctor.findings import Finding, Level
from orchctl.doctor.judge import CHECKS, examine
from tests.support.fake_nvml import FakeNvml, nvml, nvml_library
from tests.support.pools import a_model, a_pool

__all__ = ["nvml", "nvml_library"]

ROOT = Path(__file__).parent.parent.parent
GIB = 2**30
UID = 990


def a_node(name: str, mode: int = 0o666, gid: int = 0) -> FileFact:
    return FileFact(path=f"/dev/{name}", mode=mode, uid=0, gid=gid)


NODES = (a_node("nvidiactl"), a_node("nvidia-uvm"), a_node("nvidia0"))
DRIVER = DriverFacts(
    module="580.95.05",
    library="580.95.05",
    gpus=(Gpu(index=0, name="NVIDIA H200", is_persistent=True),),
    has_uvm=True,
    nodes=NODES,
)
DAEMON = DaemonFacts(pid=321, version="0.1.0", simulated=None)
HEALTHY = HostFacts(
    config="/etc/orchctl/pools.yaml",
    config_problems=(),
    daemon=DAEMON,
    daemon_trouble=None,
    driver=DRIVER,
    ports=(PortFact(host="127.0.0.1", port=8090, holder="python (pid 321)", pid=321),),
    disks=(DiskFact(path="/var/lib/orchctl", free_bytes=50 * GIB, inodes_free=10**6, inodes_total=10**7),),
    state_dir=FileFact(path="/var/lib/orchctl", mode=0o700, uid=UID, gid=UID),
    keys_file=FileFact(path="/var/lib/orchctl/keys.json", mode=0o600, uid=UID, gid=UID),
    engines=(EngineFact(program="/usr/bin/llama-server", pools=("a",), version="version: 9999"),),
    limits=LimitFact(of="the daemon", open_files=65536, locked_bytes=-1, core_bytes=0),
    shm_bytes=8 * GIB,
    clock=ClockFact(is_synchronized=True, newest_state_ahead_s=-5.0),
    units=UnitFacts(has_systemd=True, is_installed=True, is_enabled=True),
    user="orchctl",
    service_uid=UID,
    service_gids=(UID,),
    cgroup_version=2,
    cgroup_controllers=("cpuset", "cpu", "memory", "pids"),
)


def with_(**changes: object) -> HostFacts:
    """The healthy host, but for this."""
    return msgspec.structs.replace(HEALTHY, **changes)


def driver(**changes: object) -> HostFacts:
    """The same with another driver."""
    return with_(driver=msgspec.structs.replace(DRIVER, **changes))


def bad(facts: HostFacts) -> list[Finding]:
    """What is not well."""
    return [finding for finding in examine(facts).findings if finding.level is not Level.OK]


SQUATTER = VramHolder(gpu=0, pid=77, name="python3", used_bytes=20 * GIB, is_ours=False)
OURS = VramHolder(gpu=0, pid=78, name="llama-server", used_bytes=20 * GIB, is_ours=True)
DISPLAY = VramHolder(gpu=0, pid=79, name="Xorg", used_bytes=2**20, is_ours=False)
OTHER_UID = FileFact(path="/var/lib/orchctl", mode=0o700, uid=1000, gid=1000)
ROOTS = FileFact(path="/var/lib/orchctl", mode=0o700, uid=0, gid=0)
OPEN_KEYS = FileFact(path="/k/keys.json", mode=0o644, uid=UID, gid=UID)
CASES = [
    (with_(config_problems=None), "config", Level.WARNING, "there is no config", "--config"),
    (with_(config_problems=("pools.yaml:3:5 x",)), "config", Level.FAILURE, "pools.yaml:3:5 x", "orchctl validate"),
    (
        with_(daemon=None, daemon_trouble="nobody listens", ports=()),
        "daemon",
        Level.WARNING,
        "nobody listens",
        "systemctl start",
    ),
    (with_(daemon=msgspec.structs.replace(DAEMON, version="0.0.9")), "daemon", Level.WARNING, "0.0.9", "restart"),
    (
        with_(daemon=msgspec.structs.replace(DAEMON, causes=("the keys are gone",))),
        "daemon",
        Level.FAILURE,
        "gone",
        "reload",
    ),
    (
        with_(units=UnitFacts(has_systemd=True, is_installed=False, is_enabled=False)),
        "service",
        Level.WARNING,
        "not installed",
        "orchctl install",
    ),
    (
        with_(units=UnitFacts(has_systemd=True, is_installed=True, is_enabled=True, differing=("/etc/x",))),
        "service",
        Level.WARNING,
        "/etc/x",
        "--dry-run",
    ),
    (
        with_(units=UnitFacts(has_systemd=True, is_installed=True, is_enabled=False)),
        "service",
        Level.WARNING,
        "does not start",
        "systemctl enable",
    ),
    (with_(service_uid=None), "user", Level.FAILURE, "no user orchctl", "systemd-sysusers"),
    (with_(service_uid=0, state_dir=None, keys_file=None), "user", Level.WARNING, "as root", "install"),
    (with_(keys_file=OPEN_KEYS), "files", Level.FAILURE, "others may read", "chmod 600"),
    (
        with_(state_dir=msgspec.structs.replace(ROOTS, uid=UID, mode=0o777)),
        "files",
        Level.FAILURE,
        "others may enter",
        "chmod 700",
    ),
    (with_(state_dir=OTHER_UID), "files", Level.FAILURE, "belongs to user 1000", "chown -R orchctl:"),
    (with_(state_dir=ROOTS), "files", Level.FAILURE, "belongs to root", "chown -R orchctl:"),
    (
        with_(engines=(EngineFact(program="vllm", pools=("a", "b"), trouble="is not there"),)),
        "engine",
        Level.FAILURE,
        "vllm of a, b is not there",
        "install it",
    ),
    (driver(library="580.105.08"), "driver", Level.FAILURE, "runs driver 580.95.05", "reboot"),
    (driver(is_mismatch=True, library=None), "driver", Level.FAILURE, "upgraded", "reboot"),
    (driver(module=None), "driver", Level.FAILURE, "not loaded", "modprobe nvidia"),
    (driver(trouble="it did not answer within 5 s"), "driver", Level.FAILURE, "did not answer", "nvidia-smi"),
    (driver(gpus=()), "driver", Level.FAILURE, "no GPU", "nvidia-smi -L"),
    (driver(has_uvm=False), "uvm", Level.FAILURE, "nvidia_uvm", "nvidia-modprobe"),
    (driver(nodes=NODES[:2]), "device_nodes", Level.FAILURE, "/dev/nvidia0 is missing", "nvidia-modprobe"),
    (
        driver(nodes=(*NODES[:2], a_node("nvidia0", 0o660, 44))),
        "device_nodes",
        Level.FAILURE,
        "may not use",
        "usermod -aG",
    ),
    (driver(nodes=(*NODES[:2], a_node("nvidia0", 0o600))), "device_nodes", Level.FAILURE, "may not use", "chmod a+rw"),
    (
        driver(gpus=(Gpu(index=0, name="x", is_persistent=False),)),
        "persistence",
        Level.WARNING,
        "GPU 0",
        "nvidia-persistenced",
    ),
    (
        driver(holders=(SQUATTER, OURS, DISPLAY)),
        "vram",
        Level.WARNING,
        "process 77 (python3) holds 20480 MiB",
        "kill 77",
    ),
    (
        with_(ports=(PortFact(host="::1", port=8090, holder="nginx (pid 9)", pid=9),)),
        "port",
        Level.FAILURE,
        "nginx (pid 9)",
        "ps -fp 9",
    ),
    (with_(cgroup_version=None), "cgroup", Level.WARNING, "not mounted", "mount"),
    (with_(cgroup_version=1, cgroup_controllers=None), "cgroup", Level.WARNING, "version 1", "unified"),
    (with_(cgroup_controllers=("pids", "cpu", "cpuset")), "cgroup", Level.WARNING, "memory", "install"),
    (
        with_(limits=LimitFact(of="the daemon", open_files=1024, locked_bytes=-1, core_bytes=0)),
        "limits",
        Level.WARNING,
        "1024 files",
        "LimitNOFILE",
    ),
    (
        with_(limits=LimitFact(of="the daemon", open_files=-1, locked_bytes=65536, core_bytes=0)),
        "limits",
        Level.WARNING,
        "64 KiB",
        "LimitMEMLOCK",
    ),
    (
        with_(limits=LimitFact(of="the daemon", open_files=-1, locked_bytes=-1, core_bytes=-1)),
        "limits",
        Level.WARNING,
        "core files",
        "LimitCORE",
    ),
    (with_(shm_bytes=None), "shm", Level.FAILURE, "not mounted", "mount -t tmpfs"),
    (with_(shm_bytes=64 * 2**20), "shm", Level.WARNING, "64 MiB", "remount"),
    (
        with_(disks=(DiskFact(path="/v", free_bytes=2**20, inodes_free=9999, inodes_total=9999),)),
        "disk",
        Level.FAILURE,
        "1 MiB",
        "make room",
    ),
    (
        with_(disks=(DiskFact(path="/v", free_bytes=GIB // 2, inodes_free=9999, inodes_total=9999),)),
        "disk",
        Level.WARNING,
        "512 MiB",
        "make room",
    ),
    (
        with_(disks=(DiskFact(path="/v", free_bytes=9 * GIB, inodes_free=7, inodes_total=9999),)),
        "disk",
        Level.FAILURE,
        "7 inodes",
        "make room",
    ),
    (
        with_(clock=ClockFact(is_synchronized=False, newest_state_ahead_s=None)),
        "clock",
        Level.WARNING,
        "not synchronized",
        "set-ntp",
    ),
    (
        with_(clock=ClockFact(is_synchronized=True, newest_state_ahead_s=3600.0)),
        "clock",
        Level.WARNING,
        "3600 s",
        "set-ntp",
    ),
]


@pytest.mark.parametrize(("facts", "check", "level", "says", "fix"), CASES)
def test_each_fault_is_one_finding_with_its_cause_and_its_fix(
    facts: HostFacts, check: str, level: Level, says: str, fix: str
) -> None:
    found = bad(facts)

    assert [(each.check, each.level) for each in found] == [(check, level)]
    assert says in found[0].sentence
    assert fix in (found[0].fix or "")
    assert examine(facts).healthy is (level is Level.WARNING)


def test_a_healthy_host_has_nothing_to_mend_and_every_check_speaks() -> None:
    findings = examine(HEALTHY).findings

    assert bad(HEALTHY) == []
    assert [each.check for each in findings] == [check.name for check in CHECKS]


def test_every_check_can_find_something() -> None:
    assert {check for _, check, *_ in CASES} == {check.name for check in CHECKS}


def test_simulated_gpus_need_no_driver() -> None:
    facts = with_(daemon=msgspec.structs.replace(DAEMON, simulated="1x8GiB"), driver=DriverFacts())

    assert bad(facts) == []


def test_the_listener_that_systemd_keeps_is_ours() -> None:
    assert bad(with_(ports=(PortFact(host="127.0.0.1", port=8090, holder="systemd (pid 1)", pid=1),))) == []


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n", "535.183.01"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (x)\n", "580.95.05"),
        ("", None),
    ],
)
def test_the_version_of_the_kernel_module_is_read(text: str, version: str | None) -> None:
    assert parse_module(text) == version


def test_a_process_that_an_engine_of_ours_started_is_ours_too() -> None:
    """Nobody shall be told to kill the part of an engine that holds the memory."""
    command = ["sh", "-c", "sleep 60 & echo $!; wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as engine:
        assert engine.stdout is not None
        part = int(engine.stdout.readline())
        found = [is_ours(pid, frozenset({engine.pid})) for pid in (engine.pid, part, os.getpid(), 2**40)]
        os.killpg(engine.pid, signal.SIGKILL)

    assert found == [True, True, False, False]


def test_a_limit_that_is_none_is_not_shown_as_a_number() -> None:
    facts = with_(limits=LimitFact(of="the daemon", open_files=-1, locked_bytes=-1, core_bytes=0))
    (finding,) = [each for each in examine(facts).findings if each.check == "limits"]

    assert finding.sentence == "the daemon has room: files without limit"


def test_a_port_is_free_until_somebody_listens_and_then_says_who() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        sock.listen()

        taken = host.port_fact("127.0.0.1", port)

    assert taken.pid == os.getpid()
    assert f"(pid {os.getpid()})" in str(taken.holder)
    assert host.port_fact("127.0.0.1", port).holder is None


def test_a_folder_that_is_missing_is_judged_by_the_one_above(tmp_path: Path) -> None:
    (disk,) = host.disk_facts((tmp_path / "a" / "b", tmp_path / "c"))

    assert disk.path == str(tmp_path)
    assert disk.free_bytes > 0


def test_a_clock_that_was_set_back_is_seen_by_what_was_written_before(tmp_path: Path) -> None:
    (tmp_path / "journal").touch()
    os.utime(tmp_path / "journal", (time.time() + 600, time.time() + 600))

    fact = host.clock_fact(tmp_path)

    assert 500 < (fact.newest_state_ahead_s or 0) < 700


def doctor(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The verb, in a process of its own."""
    command = [sys.executable, "-m", "orchctl", "doctor", "-o", "json", *arguments]
    environ = {**os.environ, "ORCHCTL_SOCKET": "/nonexistent/c.sock", **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ, timeout=60)


def a_config(folder: Path, **settings: object) -> Path:
    """A config with one pool."""
    path = folder / "pools.yaml"
    pools = {"pools": [a_pool()], "models": a_model(folder), "state_dir": str(folder / "state")}
    path.write_text(json.dumps({**pools, **settings}))
    return path


def findings_of(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    """By check; the last of each."""
    return {each["check"]: each for each in json.loads(done.stdout)["findings"]}


def test_it_works_without_a_daemon_and_names_who_has_the_port(tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        config = a_config(tmp_path, listen={"port": sock.getsockname()[1]})

        done = doctor("--config", str(config))

    assert done.returncode == 1
    found = findings_of(done)
    assert found["port"]["level"] == "failure"
    assert str(os.getpid()) in found["port"]["sentence"]
    assert found["daemon"]["level"] == "warning"
    assert found["config"]["level"] == "ok"


def test_keys_that_others_may_read_and_an_engine_that_is_missing_are_found(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text("{}")
    keys.chmod(0o644)
    pool = {**a_pool(), "launch": {"binary": str(tmp_path / "no-such-server")}}
    config = a_config(tmp_path, auth={"keys_file": str(keys)}, pools=[pool], listen={"port": 0})

    found = findings_of(doctor("--config", str(config)))

    assert found["files"]["fix"] == f"chmod 600 {keys}"
    assert "is not there" in found["engine"]["sentence"]


def test_what_cannot_be_looked_at_is_a_finding_and_not_the_end(tmp_path: Path) -> None:
    hidden = tmp_path / ("x" * 300)  # a name that no file system looks up, for root neither

    found = findings_of(doctor("--config", str(hidden / "pools.yaml")))

    assert "cannot be seen by this user" in found["config"]["sentence"]


def test_disks_below_a_folder_that_cannot_be_looked_at_are_those_above_it(tmp_path: Path) -> None:
    [disk] = host.disk_facts((tmp_path / ("x" * 300) / "state",))

    assert disk.path == str(tmp_path)


DRIVER_VERSION_DIFFERS = 18
"""NVML_ERROR_LIB_RM_VERSION_MISMATCH"""


def test_a_driver_that_was_upgraded_under_a_running_kernel_wants_a_reboot(nvml: FakeNvml, tmp_path: Path) -> None:
    nvml.set(returns={"nvmlInitWithFlags": DRIVER_VERSION_DIFFERS})

    found = findings_of(doctor("--config", str(a_config(tmp_path)), env=nvml.env()))

    assert (found["driver"]["level"], found["driver"]["fix"]) == ("failure", "reboot")


def test_a_host_without_a_driver_says_so(tmp_path: Path) -> None:
    found = findings_of(doctor("--config", str(a_config(tmp_path))))

    assert (found["driver"]["level"], "not loaded" in found["driver"]["sentence"]) == ("failure", True)


def test_the_documentation_has_every_check_as_it_is() -> None:
    page = (ROOT / "docs" / "doctor.md").read_text()
    rows = [f"| `{check.name}` | {check.looks_at} |" for check in CHECKS]

    assert "\n".join(rows) in page
