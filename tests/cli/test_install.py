"""`orchctl install` and `uninstall`, into a tree of their own; the living host is tests/systemd."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from orchctl.install_plan import WANTS, HostFacts, plan_install, plan_uninstall
from orchctl.install_steps import stop_wait_s
from orchctl.unit_files import CONFIG, UNITS, Setting, UnfitError, draw_files
from tests.support.pools import a_model, a_pool

needs_systemd = pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd is not installed")
SETTING = Setting(program=PurePosixPath("/opt/orchctl/bin/orchctl"))


def orchctl(verb: str, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A verb on a tree."""
    prefix = ["--prefix", "/opt/orchctl"] if verb == "install" else []
    command = [sys.executable, "-m", "orchctl", verb, "--root", str(root), *prefix, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60)


def files_of(root: Path) -> dict[str, str]:
    """Every regular file, by its place."""
    return {f"/{path.relative_to(root)}": path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def facts(**changes: object) -> HostFacts:
    """A host on which all is installed."""
    given: dict[str, object] = {
        "root": None,
        "present": draw_files(SETTING),
        "enabled": frozenset(WANTS),
        "has_user": True,
        "has_config": True,
        "has_keys": False,
        "needs_reload": False,
        "is_running": True,
    }
    return HostFacts(**{**given, **changes})  # type: ignore[arg-type]


def test_a_dry_run_shows_the_plan_and_changes_nothing(tmp_path: Path) -> None:
    done = orchctl("install", tmp_path, "--dry-run")

    assert done.returncode == 0
    assert "create  /etc/systemd/system/orchctl.service" in done.stdout
    assert "there is no config at /etc/orchctl/pools.yaml yet" in done.stdout
    assert files_of(tmp_path) == {}


def test_without_a_terminal_it_wants_a_yes(tmp_path: Path) -> None:
    done = orchctl("install", tmp_path)

    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert files_of(tmp_path) == {}


@needs_systemd
def test_it_installs_once_and_a_second_time_does_nothing(tmp_path: Path) -> None:
    first = orchctl("install", tmp_path, "--yes")
    installed = files_of(tmp_path)
    second = orchctl("install", tmp_path, "--yes")

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "nothing to do" in second.stdout
    assert files_of(tmp_path) == installed
    assert "ExecStart=/opt/orchctl/bin/orchctl serve --config /etc/orchctl/pools.yaml" in installed["/etc/systemd/system/orchctl.service"]  # fmt: skip  # noqa: E501
    assert [path for path in WANTS if not (tmp_path / path.relative_to("/")).is_symlink()] == []
    assert "orchctl:" in (tmp_path / "etc/passwd").read_text()


@needs_systemd
def test_a_changed_unit_is_shown_as_a_difference_and_put_right(tmp_path: Path) -> None:
    orchctl("install", tmp_path, "--yes")
    unit = tmp_path / "etc/systemd/system/orchctl.service"
    ours = unit.read_text()
    unit.write_text(ours.replace("WatchdogSec=15", "WatchdogSec=99"))

    done = orchctl("install", tmp_path, "--yes", "-o", "json")

    (step,) = json.loads(done.stdout)["files"]
    assert (step["path"], step["action"]) == ("/etc/systemd/system/orchctl.service", "replace")
    assert "-WatchdogSec=99\n+WatchdogSec=15\n" in step["diff"]
    assert unit.read_text() == ours


@needs_systemd
def test_the_units_follow_the_config_which_is_never_written(tmp_path: Path) -> None:
    config = tmp_path / "etc/orchctl/pools.yaml"
    config.parent.mkdir(parents=True)
    listen = {"host": "::1", "port": 9123}
    text = json.dumps(
        {"pools": [a_pool()], "models": a_model(tmp_path), "listen": listen, "shutdown": {"drain_ms": 600_000}}
    )
    config.write_text(text)

    orchctl("install", tmp_path, "--yes")

    assert "\nListenStream=[::1]:9123\n" in (tmp_path / "etc/systemd/system/orchctl.socket").read_text()
    assert "\nTimeoutStopSec=660\n" in (tmp_path / "etc/systemd/system/orchctl.service").read_text()
    assert config.read_text() == text


@needs_systemd
def test_uninstall_takes_its_own_files_and_leaves_drop_ins_and_config(tmp_path: Path) -> None:
    orchctl("install", tmp_path, "--yes")
    kept = [tmp_path / "etc/orchctl/pools.yaml", tmp_path / "etc/systemd/system/orchctl.service.d/mine.conf"]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")

    done = orchctl("uninstall", tmp_path, "--yes")

    assert done.returncode == 0, done.stderr
    left = files_of(tmp_path)
    assert all(left[f"/{path.relative_to(tmp_path)}"] == "mine" for path in kept)
    assert not any(name in path for path in left for name in UNITS if not path.endswith("mine.conf"))
    assert "nothing to do" in orchctl("uninstall", tmp_path, "--yes").stdout


@pytest.mark.parametrize("verb", ["install", "uninstall"])
@pytest.mark.parametrize("place", ["etc/systemd", "etc/systemd/system/orchctl.service"])
def test_a_link_out_of_the_tree_is_not_followed(tmp_path: Path, verb: str, place: str) -> None:
    root, outside = tmp_path / "image", tmp_path / "host"
    (outside / "system").mkdir(parents=True)
    (outside / "system" / "orchctl.service").write_text("of the host")
    link = root / place
    link.parent.mkdir(parents=True)
    link.symlink_to(outside / "system" / "orchctl.service" if place.endswith("service") else outside)

    done = orchctl(verb, root, "--yes")

    assert done.returncode == 1
    assert "leads out of" in done.stderr
    assert "of the host" not in done.stdout + done.stderr
    assert files_of(outside) == {"/system/orchctl.service": "of the host"}


def test_a_config_that_is_not_absolute_is_refused_as_the_line_that_it_is(tmp_path: Path) -> None:
    done = orchctl("install", tmp_path, "--config", "relative.yaml", "--yes")

    assert done.returncode == 2
    assert "relative.yaml is not absolute" in done.stderr


def test_the_end_of_a_service_is_waited_for_longer_than_its_unit_gives_it() -> None:
    units = draw_files(replace(SETTING, stop_s=3_600))

    plan = plan_uninstall(tuple(units), facts(present=units))

    assert stop_wait_s(plan) > 3_600


def test_credentials_are_not_promised_where_there_are_none(tmp_path: Path) -> None:
    done = orchctl("install", tmp_path, "--yes", "--credentials")

    assert done.returncode == 1
    assert "orchctl keys create" in done.stderr


@pytest.mark.parametrize("program", ["/opt/my tools/orchctl", "/opt/100%/orchctl", "bin/orchctl"])
def test_a_path_that_systemd_would_read_otherwise_is_refused(program: str) -> None:
    with pytest.raises(UnfitError, match="cannot stand in a unit file"):
        draw_files(Setting(program=PurePosixPath(program)))


@pytest.mark.parametrize("user", ["", "Root Toor", "a\nExecStart=/bin/sh", "-x"])
def test_a_user_name_that_is_none_is_refused(user: str) -> None:
    with pytest.raises(UnfitError, match="not the name"):
        draw_files(Setting(program=PurePosixPath("/x"), user=user))


def test_a_complete_install_leaves_nothing_to_plan() -> None:
    assert plan_install(draw_files(SETTING), "orchctl", CONFIG, facts()).is_empty


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({"has_user": False}, ["systemd-sysusers", "orchctl.conf"]),
        ({"needs_reload": True}, ["systemctl", "daemon-reload"]),
        ({"enabled": frozenset(WANTS[:1])}, ["systemctl", "enable", "orchctl.service"]),
    ],
)
def test_what_broke_off_half_way_is_completed(changes: dict[str, object], command: list[str]) -> None:
    plan = plan_install(draw_files(SETTING), "orchctl", CONFIG, facts(**changes))

    assert (plan.files, plan.after) == ([], [command])


def test_a_running_service_is_stopped_before_its_units_go() -> None:
    plan = plan_uninstall(tuple(draw_files(SETTING)), facts())

    assert plan.before == [["systemctl", "disable", "--now", *reversed(UNITS)]]
    assert plan.after == [["systemctl", "daemon-reload"]]


def test_a_program_that_the_service_could_not_see_is_refused() -> None:
    command = [sys.executable, "-m", "orchctl", "install", "--dry-run", "--prefix", "/home/me/.venv"]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "there is no /home/me/.venv/bin/orchctl" in done.stderr
