"""The sample policy that is shipped is what its source gives."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent.parent / "examples" / "policy"
FLAGS = ["-target", "wasm32-freestanding", "-O", "ReleaseSmall", "-fno-entry", "-rdynamic", "-fstrip"]


def test_the_module_is_built_from_its_source(tmp_path: Path) -> None:
    pytest.importorskip("ziglang", reason="`make policy` installs the compiler")
    caches = ["--cache-dir", str(tmp_path / "cache"), "--global-cache-dir", str(tmp_path / "global")]
    built = tmp_path / "pack.wasm"
    source = str(FOLDER / "pack.zig")

    subprocess.run(
        [sys.executable, "-m", "ziglang", "build-exe", source, *FLAGS, *caches, f"-femit-bin={built}"], check=True
    )

    assert built.read_bytes() == (FOLDER / "pack.wasm").read_bytes()
