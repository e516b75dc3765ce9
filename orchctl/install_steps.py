"""Looks at a host before an install, and carries a plan out: files written whole, commands run as argument lists.

Decides nothing. Foreign errors become VerbError here.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from orchctl.exits import ExitCode, VerbError
from orchctl.install_plan import WANTS, HostFacts, Plan
from orchctl.unit_files import KEYS, SERVICE

UNIT_MODE = 0o644
COMMAND_S = 180.0
"""The longest wait for one command; `stop_wait_s` says it for the end of the service."""
STOP_SLACK_S = 30.0
_STOP_S = re.compile(r"(?m)^TimeoutStopSec=([0-9]{1,6})$")


def place(path: PurePosixPath, root: Path | None) -> Path:
    """Where an absolute path lies in the tree that is installed into. Raises VerbError where a link leads out of it."""
    if root is None:
        return Path(path)
    top = root.resolve()
    target = top / path.relative_to("/")
    ends = [target.parent.resolve()]
    if path not in WANTS and target.is_symlink():  # systemd's own links are absolute, and never followed here
        ends.append(target.resolve())
    if outside := [end for end in ends if end != top and top not in end.parents]:
        cause = f"{path} leads out of {root}, to {outside[0]}"
        raise VerbError(ExitCode.FAILED, cause, "make that link a folder or a relative link within the tree")
    return ends[0] / target.name


def gather(known: Iterable[PurePosixPath], user: str, config: PurePosixPath, root: Path | None) -> HostFacts:
    """What is there now. Raises VerbError where it may not be looked at."""
    try:
        present = {path: place(path, root).read_text(errors="replace") for path in known if place(path, root).exists()}
        enabled = frozenset(path for path in WANTS if os.path.lexists(place(path, root)))
        passwd = place(PurePosixPath("/etc/passwd"), root)
        has_user = passwd.exists() and any(line.startswith(f"{user}:") for line in passwd.read_text().splitlines())
        return HostFacts(
            root=None if root is None else str(root),
            present=present,
            enabled=enabled,
            has_user=has_user,
            has_config=place(config, root).exists(),
            has_keys=place(KEYS, root).exists(),
            needs_reload=root is None and _shown("NeedDaemonReload") == "yes",
            is_running=root is None and _shown("ActiveState") in {"active", "activating", "reloading"},
        )
    except OSError as error:
        raise _denied(error) from None


def _shown(name: str) -> str:
    """A property of our service; empty where there is no systemd to ask."""
    try:
        asked = subprocess.run(
            ["systemctl", "show", SERVICE, f"--property={name}", "--value"],
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.strip()


def perform(plan: Plan, wanted: Mapping[PurePosixPath, str], root: Path | None) -> None:
    """Carry it out, in order; the first thing that fails ends it. Raises VerbError."""
    for command in plan.before:
        run(command, stop_wait_s(plan))
    try:
        for step in plan.files:
            target = place(PurePosixPath(step.path), root)
            if step.action == "remove":
                target.unlink(missing_ok=True)
            else:
                write_whole(target, wanted[PurePosixPath(step.path)])
    except OSError as error:
        raise _denied(error) from None
    for command in plan.after:
        run(command)


def write_whole(path: Path, text: str) -> None:
    """Replace a file at once: whoever reads it sees the old text or the new. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), UNIT_MODE)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def stop_wait_s(plan: Plan) -> float:
    """How long the end of the service may take: longer than the unit that is removed gives its running tasks."""
    units = "\n".join(line.removeprefix("-") for step in plan.files for line in step.diff.splitlines())
    return max([COMMAND_S, *(int(each) + STOP_SLACK_S for each in _STOP_S.findall(units))])


def run(command: list[str], within_s: float = COMMAND_S) -> None:
    """Run one command of a plan. Raises VerbError with its own words where it fails."""
    spoken = " ".join(command)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=within_s)
    except FileNotFoundError:
        raise VerbError(
            ExitCode.FAILED, f"{command[0]} is not on this host", "install systemd, or use `--root DIR` for an image"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VerbError(ExitCode.FAILED, f"`{spoken}` did not end well ({error})", "run it by hand") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise VerbError(ExitCode.FAILED, f"`{spoken}` failed: {last.rstrip('.')}", "mend that, then the same again")


def _denied(error: OSError) -> VerbError:
    cause = f"{error.filename} cannot be read or written ({error.strerror})"
    if isinstance(error, PermissionError):
        return VerbError(ExitCode.NOT_PERMITTED, cause, "run it as root")
    return VerbError(ExitCode.FAILED, cause, "mend that, then the same again")
