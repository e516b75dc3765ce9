"""The fake `libcuda.so.1`: memory that a process takes through it stands in the fake NVML's script."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.fake_nvml import find_compiler

SOURCE = Path(__file__).with_suffix(".c")
SONAME = "libcuda.so.1"
COMPILE_S_MAX = 60


@pytest.fixture(scope="session")
def cuda_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the built library."""
    folder = tmp_path_factory.mktemp("cuda")
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{SONAME}"]
    command = [find_compiler(), *flags, "-o", str(folder / SONAME), str(SOURCE)]
    subprocess.run(command, check=True, timeout=COMPILE_S_MAX)
    return folder


def with_cuda(env: Mapping[str, str], library: Path, *, fails: str | None = None) -> dict[str, str]:
    """`env` with the library first on LD_LIBRARY_PATH; the function `fails` fails."""
    failing = {} if fails is None else {"FAKE_CUDA_FAILS": fails}
    return {**env, **failing, "LD_LIBRARY_PATH": f"{library}:{env.get('LD_LIBRARY_PATH', '')}"}
