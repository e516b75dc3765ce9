"""The unit file agrees with the daemon: its exit codes, its readiness, its watchdog."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from supervisor import main

UNIT = Path(__file__).parent.parent / "systemd" / "orchctl.service"


def service() -> configparser.SectionProxy:
    """The [Service] section."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys of a unit are case-sensitive
    parser.read(UNIT)
    return parser["Service"]


def test_it_does_not_restart_what_cannot_start() -> None:
    hopeless = {main.EXIT_CANNOT_CREATE, main.EXIT_TEMPORARY, main.EXIT_CANNOT_LISTEN, main.EXIT_CONFIG}

    assert {int(code) for code in service()["RestartPreventExitStatus"].split()} == hopeless


def test_it_waits_for_ready_and_leaves_engines_to_the_daemon() -> None:
    found = service()

    assert (found["Type"], found["KillMode"]) == ("notify", "process")
    assert int(found["WatchdogSec"]) > 0
    assert int(found["TimeoutStopSec"]) > 30  # the default of shutdown.drain_ms, and the workers' own end


def test_systemd_takes_it(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "orchctl.service"
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/orchctl", "/bin/true"))
    verified = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)

    assert verified.returncode == 0, verified.stderr
