"""Builds the two C tools of the bench, once per change of their sources. Runs nothing else."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

BENCH_DIR = Path(__file__).resolve().parent
BUILD_DIR = BENCH_DIR / "build"
COMPILE = ("cc", "-O2", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror")
COMPILE_S_MAX = 120


@dataclass(frozen=True, slots=True)
class Tools:
    """Paths of the compiled programs."""

    engine: Path
    loadgen: Path


def build_tools(into: Path = BUILD_DIR) -> Tools:
    """Compile what is out of date. Raises CalledProcessError where the compiler refuses."""
    into.mkdir(parents=True, exist_ok=True)
    return Tools(_compile("fake_engine", into), _compile("loadgen", into))


def _compile(name: str, into: Path) -> Path:
    source, program = BENCH_DIR / f"{name}.c", into / name
    newest = max(path.stat().st_mtime for path in (source, *(BENCH_DIR / "include").glob("*.h")))
    if not program.exists() or program.stat().st_mtime < newest:
        subprocess.run([*COMPILE, "-o", str(program), str(source)], check=True, timeout=COMPILE_S_MAX)
    return program
