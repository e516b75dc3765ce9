"""The fake `libnvidia-ml.so.1`: built once per test session, and told by each test what it has and how it fails.

A test that wants its own process to see it asks for the fixtures by importing them into its conftest or module:
`nvml_library` (session) and `nvml` (a `FakeNvml` of one test), and starts the process with `nvml.env()`.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_suffix(".c")
SONAME = "libnvidia-ml.so.1"
COMPILE_S_MAX = 60
_COMPILERS = ("cc", "gcc", "clang")


@dataclass(frozen=True)
class FakeGpu:
    """One GPU of the script. Sizes are MiB."""

    uuid: str
    vram_total_mib: int = 24_576
    vram_used_mib: int = 0
    utilization_percent: int = 0
    compute_capability: tuple[int, int] = (8, 9)
    name: str = "NVIDIA Fake 4090"

    def line(self) -> str:
        """Its line of the script."""
        figures = (self.vram_total_mib, self.vram_used_mib, self.utilization_percent, *self.compute_capability)
        return f"device {self.uuid} {' '.join(map(str, figures))} {self.name}"


def compile_nvml(folder: Path, *, omit: str | None = None) -> Path:
    """Build the library in `folder`, without the function `omit`; skips the test where there is no C compiler."""
    compiler = next(filter(shutil.which, _COMPILERS), None)
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc or clang): the fake NVML cannot be built")
    folder.mkdir(parents=True, exist_ok=True)
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{SONAME}"]
    defines = [f"-DOMIT_{omit}"] if omit else []
    subprocess.run(
        [compiler, *flags, *defines, "-o", str(folder / SONAME), str(SOURCE)], check=True, timeout=COMPILE_S_MAX
    )
    return folder


class FakeNvml:
    """A script and the environment that makes a process read it. The script can be changed while the process runs."""

    def __init__(self, library: Path, script: Path) -> None:
        """`library` is the folder with the built library, `script` a path that is this test's own."""
        self._library = library
        self._script = script
        self.set()

    def set(
        self,
        *gpus: FakeGpu,
        returns: Mapping[str, int] | None = None,
        hangs: tuple[str, ...] = (),
    ) -> None:
        """Replace the script, in one step: these GPUs, these return codes by `function[@uuid]`, these that hang."""
        lines = [gpu.line() for gpu in gpus]
        lines += [f"return {function} {code}" for function, code in (returns or {}).items()]
        lines += [f"hang {function}" for function in hangs]
        temporary = self._script.with_suffix(".new")
        temporary.write_text("\n".join(lines) + "\n")
        temporary.replace(self._script)

    def env(self, base: Mapping[str, str] = os.environ) -> dict[str, str]:
        """`base` with the library first on LD_LIBRARY_PATH."""
        paths = [str(self._library), *filter(None, [base.get("LD_LIBRARY_PATH")])]
        return {**base, "LD_LIBRARY_PATH": ":".join(paths), "FAKE_NVML_SCRIPT": str(self._script)}


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the built library."""
    return compile_nvml(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def nvml(nvml_library: Path, tmp_path: Path) -> FakeNvml:
    """A fake NVML with no GPU so far."""
    return FakeNvml(nvml_library, tmp_path / "nvml.script")
