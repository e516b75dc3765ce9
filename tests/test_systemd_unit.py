"""The unit files agree with the daemon, and hold against the real tools; how they live is shown by tests/systemd."""

import re
import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from orchctl.unit_files import SERVICE, SOCKETS, UNIT_DIR, Setting, draw_files
from supervisor import main

EXPOSURE_TENTHS_MAX = 15
FILES = draw_files(Setting(program=PurePosixPath("/usr/local/bin/orchctl")))
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


def setting(key: str, unit: str = SERVICE) -> str:
    """The last value of a key."""
    values: list[str] = re.findall(rf"(?m)^{key}=(.*)$", FILES[UNIT_DIR / unit])
    return values[-1]


@pytest.fixture
def unit_dir(tmp_path: Path) -> Path:
    """The units, with a program that exists."""
    for name in (SERVICE, *SOCKETS):
        text = FILES[UNIT_DIR / name].replace("/usr/local/bin/orchctl", "/bin/true")
        (tmp_path / name).write_text(text)
    return tmp_path


def test_it_does_not_restart_what_cannot_start() -> None:
    assert {int(code) for code in setting("RestartPreventExitStatus").split()} == {main.EXIT_CONFIG}


def test_it_waits_for_ready_and_leaves_engines_to_the_daemon() -> None:
    assert (setting("Type"), setting("KillMode")) == ("notify", "process")
    assert int(setting("WatchdogSec")) > 0
    assert int(setting("TimeoutStopSec")) > 30  # the default of shutdown.drain_ms, and the workers' own end


def test_the_daemon_can_hold_what_it_delegates_and_keeps_its_sockets_over_a_restart() -> None:
    assert {"memory", "pids", "cpu", "cpuset"} <= set(setting("Delegate").split())
    assert "ProtectControlGroups=yes" not in FILES[UNIT_DIR / SERVICE]
    assert setting("RuntimeDirectoryPreserve") == "yes"


def test_gpus_can_be_reached_and_cuda_can_compile() -> None:
    text = FILES[UNIT_DIR / SERVICE]

    assert setting("DevicePolicy") == "closed"
    assert {"char-nvidia rw", "char-nvidia-uvm rw", "char-nvidia-caps rw"} <= set(re.findall("DeviceAllow=(.*)", text))
    assert "\nMemoryDenyWriteExecute=yes" not in text
    assert "\nPrivateDevices=yes" not in text


@needs_systemd
def test_systemd_takes_them_without_a_word(unit_dir: Path) -> None:
    names = [str(unit_dir / name) for name in (SERVICE, *SOCKETS)]
    verified = subprocess.run(["systemd-analyze", "verify", *names], capture_output=True, text=True, check=False)

    assert (verified.returncode, verified.stderr) == (0, "")


@needs_systemd
def test_the_service_is_exposed_to_little(unit_dir: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_TENTHS_MAX}"]
    measured = subprocess.run([*command, str(unit_dir / SERVICE)], capture_output=True, text=True, check=False)

    assert measured.returncode == 0, measured.stdout.splitlines()[-1]


@needs_systemd
def test_the_measure_sees_a_service_that_is_not_protected(unit_dir: Path) -> None:
    unit = unit_dir / SERVICE
    unit.write_text(unit.read_text().replace("ProtectSystem=strict\n", ""))
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_TENTHS_MAX}", str(unit)]

    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
