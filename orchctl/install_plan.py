"""What an install or an uninstall would do, decided from what is there. Pure: shows and performs nothing.

A plan is made of facts, not of memory: what broke off half-way is completed by the next one; a complete one is empty.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from msgspec import Struct

from orchctl.unit_files import SERVICE, SOCKETS, UNIT_DIR, UNITS

WANTS = (
    UNIT_DIR / "multi-user.target.wants" / SERVICE,
    *(UNIT_DIR / "sockets.target.wants" / name for name in SOCKETS),
)
"""The links that `systemctl enable` makes."""


class FileStep(Struct, frozen=True, kw_only=True):
    """One file. `action` is create, replace or remove; `diff` is unified, from what is there to what will be."""

    path: str
    action: str
    diff: str


class Plan(Struct, frozen=True, kw_only=True):
    """All that would be done, in order: `before`, `files`, `after`. `remarks` is what the operator should know.

    Commands are argument lists. What is not named here is not touched; the config never is.
    """

    files: list[FileStep]
    after: list[list[str]]
    before: list[list[str]] = []
    remarks: list[str] = []

    @property
    def is_empty(self) -> bool:
        """Whether everything is as it should be."""
        return not (self.files or self.after or self.before)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What is there. `root` is the tree that is installed into, None for the running host.

    `present` has the files of ours that exist; `enabled` those of WANTS that do; `needs_reload` says that systemd has
    read older units than those on disk.
    """

    root: str | None
    present: Mapping[PurePosixPath, str]
    enabled: frozenset[PurePosixPath]
    has_user: bool
    has_config: bool
    has_keys: bool
    needs_reload: bool
    is_running: bool


def plan_install(wanted: Mapping[PurePosixPath, str], user: str, config: PurePosixPath, facts: HostFacts) -> Plan:
    """1. the files that are missing or differ; 2. the user; 3. the folders; 4. systemd reads its units; 5. enabled."""
    files = [_write(path, text, facts.present.get(path)) for path, text in wanted.items()]
    changed = {PurePosixPath(step.path) for step in files if step is not None}
    after: list[list[str]] = []
    if not facts.has_user or any("sysusers.d" in path.parts for path in changed):
        after.append(["systemd-sysusers", *_in(facts.root), "orchctl.conf"])
    if facts.root is None and any("tmpfiles.d" in path.parts for path in changed):
        after.append(["systemd-tmpfiles", "--create", "orchctl.conf"])
    is_unit_changed = any(UNIT_DIR in path.parents for path in changed)
    if facts.root is None and (is_unit_changed or facts.needs_reload):
        after.append(["systemctl", "daemon-reload"])
    if facts.enabled != frozenset(WANTS):
        after.append(["systemctl", *_in(facts.root), "enable", SERVICE])
    remarks = _install_remarks(user, config, facts, is_unit_changed=is_unit_changed)
    return Plan(files=[step for step in files if step is not None], after=after, remarks=remarks)


def _install_remarks(user: str, config: PurePosixPath, facts: HostFacts, *, is_unit_changed: bool) -> list[str]:
    remarks = []
    if not facts.has_config:
        remarks.append(f"there is no config at {config} yet: write it, then `orchctl validate {config}`")
    if facts.root is not None:
        return remarks
    if facts.is_running and is_unit_changed:
        remarks.append("the service runs with the old units until `systemctl restart orchctl`")
    elif not facts.is_running:
        remarks.append("start it with `systemctl start orchctl`, then look with `orchctl doctor` and `orchctl status`")
    remarks.append(f"who is to operate it without being root joins the group: `usermod -aG {user} NAME`")
    return remarks


def plan_uninstall(known: Sequence[PurePosixPath], facts: HostFacts) -> Plan:
    """1. stop and disable; 2. remove our files; 3. systemd forgets them. State, config and user stay."""
    files = [
        FileStep(path=str(path), action="remove", diff=_diff(path, facts.present[path], ""))
        for path in known
        if path in facts.present
    ]
    before = []
    if facts.enabled or facts.is_running:
        now = ["--now"] if facts.root is None else []
        before.append(["systemctl", *_in(facts.root), "disable", *now, *reversed(UNITS)])
    after = [["systemctl", "daemon-reload"]] if files and facts.root is None else []
    kept = "kept: the config and keys in /etc/orchctl, the state in /var/lib/orchctl (with waiting tasks), and the user"
    return Plan(files=files, before=before, after=after, remarks=[kept])


def _write(path: PurePosixPath, text: str, present: str | None) -> FileStep | None:
    if present == text:
        return None
    action = "create" if present is None else "replace"
    return FileStep(path=str(path), action=action, diff=_diff(path, present or "", text))


def _diff(path: PurePosixPath, old: str, new: str) -> str:
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), f"{path} (now)", f"{path} (then)", n=1
    )
    return "".join(lines)


def _in(root: str | None) -> list[str]:
    return [] if root is None else [f"--root={root}"]
