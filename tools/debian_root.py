"""A small Debian with systemd in a folder: made once by debootstrap, copied for each use, booted by systemd-nspawn.

Needs root, debootstrap and systemd-container. The mirror is the one that this host's own apt uses.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

SUITES = {(3, 11): "bookworm", (3, 13): "trixie"}
"""The release whose Python is ours: compiled dependencies are lent to it."""
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,ca-certificates,libgomp1,libstdc++6,procps,iproute2"
VENV = "/opt/orchctl"
DEPENDENCIES = "/opt/dependencies"
MAKE_S = 900
BOOT_S = 60
STOP_S = 30
_BUILD = 1
"""Raised where the recipe changes, so that an older folder is not taken."""


class RootError(Exception):
    """The machine cannot do this; one sentence for whoever asked."""


def cached_root() -> Path:
    """The pristine tree, made now where it is missing. Raises RootError."""
    suite = SUITES.get(sys.version_info[:2])
    if suite is None:
        raise RootError(f"no Debian release has Python {sys.version_info[0]}.{sys.version_info[1]}; use 3.11 or 3.13")
    for program in ("debootstrap", "systemd-nspawn"):
        if shutil.which(program) is None:
            raise RootError(f"{program} is missing; run: apt-get install debootstrap systemd-container")
    if os.geteuid() != 0:
        raise RootError("only root can boot a system in a folder")
    cache = Path(os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))) / "orchctl"
    root = cache / f"rootfs-{suite}-{_BUILD}"
    if not root.exists():
        _make(root, suite)
    return root


def _make(root: Path, suite: str) -> None:
    building = root.with_suffix(".building")
    shutil.rmtree(building, ignore_errors=True)
    building.parent.mkdir(parents=True, exist_ok=True)
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(building), *_mirror()]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=MAKE_S)
    if made.returncode:
        raise RootError(f"debootstrap failed: {(made.stdout.strip().splitlines() or ['no word'])[-1]}")
    for archive in (building / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()
    enter(building, ["python3", "-m", "venv", VENV])
    (next((building / VENV[1:]).glob("lib/python3*/site-packages")) / "lent.pth").write_text(f"{DEPENDENCIES}\n")
    building.rename(root)


def _mirror() -> list[str]:
    """Where this host's apt finds Debian itself; debootstrap's own choice where that cannot be told."""
    folder = Path("/etc/apt")
    files = [*folder.glob("sources.list.d/*.sources"), *folder.glob("sources.list.d/*.list"), folder / "sources.list"]
    for file in files:
        text = file.read_text() if file.exists() else ""
        if found := re.search(r"^(?:URIs:|deb(?: \[.*\])?)\s+(\S+/debian)/?(?:\s|$)", text, re.MULTILINE):
            return [found[1]]
    return []


def enter(root: Path, command: Sequence[str], *binds: str) -> str:
    """Run one command in the tree, without booting it. Raises RootError."""
    nspawn = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--pipe", f"--directory={root}", *binds]
    done = subprocess.run([*nspawn, *command], capture_output=True, text=True, check=False, timeout=MAKE_S)
    if done.returncode:
        raise RootError(f"`{' '.join(command)}` failed in the tree: {done.stderr.strip()[-500:]}")
    return done.stdout


class Machine:
    """A booted tree."""

    def __init__(self, leader: int) -> None:
        self._leader = leader

    def run(self, command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as its root; the exit code is for the caller to judge."""
        inside = ["nsenter", f"--target={self._leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        # Of ours only the terminal's name goes in; a locale or a path of this host means nothing there.
        environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"}
        return subprocess.run(
            [*inside, *command], env=environ, text=True, stdout=subprocess.PIPE, check=False, timeout=timeout_s
        )


@contextlib.contextmanager
def booted(root: Path, log: Path, *binds: str) -> Iterator[Machine]:
    """The tree with systemd as its first process and a network of its own; powered off at the end. Raises RootError."""
    nspawn = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe"]
    with log.open("wb") as out:
        command = [*nspawn, "--private-network", "--machine=orchctl-test", f"--directory={root}", *binds]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        machine = Machine(_leader_of(process, log))
        state = machine.run(["systemctl", "is-system-running", "--wait"], BOOT_S).stdout.strip()
        if state not in {"running", "degraded"}:
            raise RootError(f"the system did not come up: {state}; see {log}")
        yield machine
        machine.run(["systemctl", "poweroff"], STOP_S)
        process.wait(STOP_S)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(STOP_S)


def _leader_of(nspawn: subprocess.Popen[bytes], log: Path) -> int:
    """The first process inside, once it can be talked to."""
    deadline = time.monotonic() + BOOT_S
    while time.monotonic() < deadline:
        if nspawn.poll() is not None:
            raise RootError(f"systemd-nspawn ended with {nspawn.returncode}: {log.read_text()[-500:]}")
        children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text().split()
        if children and (Path(f"/proc/{children[0]}/root/run/systemd/private")).exists():
            return int(children[0])
        time.sleep(0.05)
    raise RootError(f"systemd did not start within {BOOT_S} s; see {log}")
