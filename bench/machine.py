"""Facts of the machine and the programs that figures depend on. Reads only."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.middles import find_nginx

PACKAGES = ("uvloop", "aiohttp", "msgspec")


def machine_facts() -> dict[str, object]:
    """Plain data for the JSON of a run."""
    memory = Path("/proc/meminfo").read_text().split("kB", 1)[0].split()[-1]
    return {
        "cpu": _cpu_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_mb": int(memory) * 1024 // 10**6,
        "load_average": os.getloadavg(),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "packages": {name: _package_version(name) for name in PACKAGES},
        "nginx": _nginx_version(),
        "durability_disk": _filesystem_of(Path(__file__)),
    }


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _package_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _nginx_version() -> str | None:
    program = find_nginx()
    if program is None:
        return None
    said = subprocess.run([program, "-v"], capture_output=True, check=False, timeout=10).stderr
    return said.decode().strip().rpartition("/")[2]


def _filesystem_of(path: Path) -> str:
    """The type of the file system that the journal of a run is written to."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [mount for mount in mounts if path.is_relative_to(mount[1])]
    return max(holding, key=lambda mount: len(mount[1]))[2] if holding else "unknown"
