"""Runs `crash_points` in a process of its own, and says how often each kind of end was met."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.small_disks import build_preload

PROJECT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")
KILLED = {
    f"{how} {call}: killed" for call in ("write", "sync", "cut", "rename", "remove") for how in ("before", "after")
} | {"half write: killed"}


def a_quick_folder(otherwise: Path) -> Path:
    """Where a sync costs nothing, and a kill leaves the same as on any file system."""
    return MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else otherwise


def sweep(scratch: Path, times: int, timeout_s: float) -> dict[str, int]:
    """Every kind of call in every way, each at least so often; fails where a promise was broken."""
    library = build_preload(PROJECT / "tests" / "support" / "crash_point.c", scratch / "crash_point.so")
    with tempfile.TemporaryDirectory(dir=a_quick_folder(scratch)) as place:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.crash_points", str(library), place, str(times)],
            env={**os.environ, "LD_PRELOAD": str(library)},
            cwd=PROJECT,
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() >= KILLED
    assert min(found[kind] for kind in KILLED) >= times
    for call in ("write", "sync", "cut", "rename", "remove"):
        assert sum(count for kind, count in found.items() if kind.startswith(f"fail {call}:")) >= times
    return found
