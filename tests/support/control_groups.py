"""Control groups of a test's own, cgroup v1: a process is starved, frozen, or kept from forking, for real."""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path("/sys/fs/cgroup")


class ControlGroup:
    """One group of one controller."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self, pid: int) -> None:
        """Move a process, with all its threads, into the group."""
        (self._path / "cgroup.procs").write_text(str(pid))

    def set(self, name: str, value: object) -> None:
        """Change one of its settings."""
        (self._path / name).write_text(str(value))

    def get(self, name: str) -> str:
        """Read one."""
        return (self._path / name).read_text().strip()


@contextlib.contextmanager
def a_group(controller: str) -> Iterator[ControlGroup]:
    """A fresh group; who is in it at the end goes back to the root. Skips the test where none can be made."""
    path = _ROOT / controller / f"orchctl-test-{uuid.uuid4().hex[:12]}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup v1 of {controller} can be made here: {error.strerror}")
    try:
        yield ControlGroup(path)
    finally:
        for pid in (path / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (path.parent / "cgroup.procs").write_text(pid)
        with contextlib.suppress(OSError):
            path.rmdir()
