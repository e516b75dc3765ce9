"""The fake `libnvidia-ml.so.1`: built once per test session, and told by each test what it has and how it fails.

A test that wants its own process to see it asks for the fixtures by importing them into its conftest or module:
`nvml_library` (session) and `nvml` (a `FakeNvml` of one test), and starts the process with `nvml.env()`.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_suffix(".c")
SONAME = "libnvidia-ml.so.1"
COMPILE_S_MAX = 60
_COMPILERS = ("cc", "gcc", "clang")
EVENTS = 0xC00B
"""What a GPU that can tell of its faults supports: ECC errors of both kinds, XIDs, GPU unavailable, recovery action."""
XID = 0x8
ECC_SINGLE = 0x1
ECC_DOUBLE = 0x2
GPU_UNAVAILABLE = 0x4000
RECOVERY_ACTION = 0x8000
RECOVERY_FIELD = 230


@dataclass(frozen=True)
class FakeMig:
    """One MIG instance of a GPU. Sizes are MiB."""

    uuid: str
    vram_total_mib: int = 9_856
    vram_used_mib: int = 0
    gpu_instance: int = 1
    compute_instance: int = 0

    def line(self, parent: str) -> str:
        """Its line of the script."""
        figures = (self.vram_total_mib, self.vram_used_mib, self.gpu_instance, self.compute_instance)
        return f"mig {parent} {self.uuid} {' '.join(map(str, figures))}"


@dataclass(frozen=True)
class FakeGpu:
    """One GPU of the script. Sizes are MiB.

    `facts` and `fields` are what else it reports: figures by the words that the C file lists, and values by field id;
    what is in neither is not supported. `processes` are (pid, MiB) pairs, -1 MiB for memory that is not known, `links`
    gives the bus id at the other end of each NVLink, `uuid` of a MIG instance may stand in `mig_processes`.
    """

    uuid: str
    vram_total_mib: int = 24_576
    vram_used_mib: int = 0
    utilization_percent: int = 0
    compute_capability: tuple[int, int] = (8, 9)
    name: str = "NVIDIA Fake 4090"
    facts: Mapping[str, object] = field(default_factory=dict)
    fields: Mapping[int, int] = field(default_factory=dict)
    processes: tuple[tuple[int, int], ...] = ()
    links: Mapping[int, str] = field(default_factory=dict)
    migs: tuple[FakeMig, ...] = ()
    mig_processes: tuple[tuple[str, int, int], ...] = ()
    lists_processes: bool = False
    """Whether it can say that there are none; else a GPU without `processes` cannot list them."""

    def lines(self) -> list[str]:
        """Its lines of the script."""
        figures = (self.vram_total_mib, self.vram_used_mib, self.utilization_percent, *self.compute_capability)
        silent = [] if self.processes or self.lists_processes else [self.uuid]
        silent += [mig.uuid for mig in self.migs if not (self.mig_processes or self.lists_processes)]
        return [
            f"device {self.uuid} {' '.join(map(str, figures))} {self.name}",
            *(f"fact {self.uuid} {key} {value}" for key, value in self.facts.items()),
            *(f"field {self.uuid} {number} {value}" for number, value in self.fields.items()),
            *(f"process {self.uuid} {pid} {mib}" for pid, mib in self.processes),
            *(f"nvlink {self.uuid} {number} {bus_id}" for number, bus_id in self.links.items()),
            *(mig.line(self.uuid) for mig in self.migs),
            *(f"process {uuid} {pid} {mib}" for uuid, pid, mib in self.mig_processes),
            *(f"return nvmlDeviceGetComputeRunningProcesses_v3@{uuid} 3" for uuid in silent),
        ]


def find_compiler() -> str:
    """A C compiler; skips the test where there is none."""
    compiler = next(filter(shutil.which, _COMPILERS), None)
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc or clang): the fake driver cannot be built")
    return compiler


def compile_nvml(folder: Path, *, omit: str | None = None, of_driver: str | None = None) -> Path:
    """Build the library in `folder`; skips the test where there is no C compiler.

    It lacks the function `omit`, and refuses every driver but `of_driver`, where they are given.
    """
    compiler = find_compiler()
    folder.mkdir(parents=True, exist_ok=True)
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", f"-Wl,-soname,{SONAME}"]
    unused = ["-Wno-unused-function"] if omit else []
    defines = [f"-DOMIT_{omit}"] if omit else []
    defines += [f'-DOF_DRIVER="{of_driver}"'] if of_driver else []
    subprocess.run(
        [compiler, *flags, *unused, *defines, "-o", str(folder / SONAME), str(SOURCE)],
        check=True,
        timeout=COMPILE_S_MAX,
    )
    return folder


class FakeNvml:
    """A script and the environment that makes a process read it. The script can be changed while the process runs."""

    def __init__(self, library: Path, script: Path) -> None:
        """`library` is the folder with the built library, `script` a path that is this test's own."""
        self._library = library
        self._script = script
        self._events: list[str] = []
        self._failures: list[str] = []
        self._lines: list[str] = []
        self.set()

    def set(
        self,
        *gpus: FakeGpu,
        returns: Mapping[str, int] | None = None,
        hangs: tuple[str, ...] = (),
        delays_ms: Mapping[str, int] | None = None,
        count: int | None = None,
        driver: str | None = None,
    ) -> None:
        """Replace the script, in one step: these GPUs, these return codes by `function[@uuid]`, these that hang.

        `count` is how many GPUs NVML says there are, where that is not how many there are; `driver` the version of the
        driver. Events that were raised before stay: each is given to a process once.
        """
        self._lines = [line for gpu in gpus for line in gpu.lines()]
        self._lines += [f"return {function} {code}" for function, code in (returns or {}).items()]
        self._lines += [f"hang {function}" for function in hangs]
        self._lines += [f"delay {function} {ms}" for function, ms in (delays_ms or {}).items()]
        self._lines += [] if count is None else [f"count {count}"]
        self._lines += [] if driver is None else [f"driver {driver}"]
        self._write()

    def fail_once(self, function: str, code: int) -> None:
        """Let the next call of `function[@uuid]` return this code, and the one after it what the script says."""
        self._failures.append(f"once {len(self._failures) + 1} {function} {code}")
        self._write()

    def raise_event(self, uuid: str, data: int, event_type: int = XID) -> None:
        """Let an event happen; `data` is the XID of an event of that type."""
        self._events.append(f"event {len(self._events) + 1} {uuid} {event_type:#x} {data}")
        self._write()

    def _write(self) -> None:
        temporary = self._script.with_suffix(".new")
        temporary.write_text("\n".join([*self._lines, *self._failures, *self._events]) + "\n")
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
