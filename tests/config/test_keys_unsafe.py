"""A key file that cannot be trusted is refused with one sentence, and never waited for, followed or repaired."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.config.keys import KeysError, changing_keys, read_keys
from tests.support.keys import a_key

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good key file."""
    a_key(tmp_path / "keys.json")
    return tmp_path / "keys.json"


def as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def as_symlink(path: Path) -> None:
    path.rename(path.with_name("real.json"))
    path.symlink_to("real.json")


def as_dangling_symlink(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def as_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def edited(**changes: object) -> Callable[[Path], None]:
    """The file with other values in its one key."""

    def edit(path: Path) -> None:
        document = json.loads(path.read_text())
        document["keys"][0].update(changes)
        path.write_text(json.dumps(document))

    return edit


def twice(path: Path) -> None:
    document = json.loads(path.read_text())
    document["keys"] *= 2
    path.write_text(json.dumps(document))


def text(raw: bytes) -> Callable[[Path], None]:
    return lambda path: void(path.write_bytes(raw))


def void(_: object) -> None:
    return None


def mode(bits: int) -> Callable[[Path], None]:
    return lambda path: path.chmod(bits)


BAD = {
    "world-readable": (mode(0o644), "others may read .* run: chmod 600 "),
    "group-readable": (mode(0o640), "others may read"),
    "group-writable": (mode(0o620), "others may read"),
    "in a folder of others": (lambda path: path.parent.chmod(0o777), "others may write to the folder"),
    "a directory": (as_directory, "is not a regular file"),
    "a fifo": (as_fifo, "is not a regular file"),
    "a symlink": (as_symlink, "is a symbolic link, which is not followed"),
    "a dangling symlink": (as_dangling_symlink, "is a symbolic link, which is not followed"),
    "a device behind a link": (as_device, "is a symbolic link"),
    "endless": (lambda path: os.truncate(path, 5 * 1024 * 1024), "is larger than 4194304 bytes"),
    "empty": (text(b""), "is not a key file: Input data was truncated"),
    "cut short": (lambda path: os.truncate(path, 100), "is not a key file: Input data was truncated"),
    "a raw key": (text(b"ok_" + b"a" * 43), "is not a key file: JSON is malformed"),
    "two lines": (text(b'{"version":1}\n{"version":1}\n'), "is not a key file: JSON is malformed"),
    "no object": (text(b"[]"), "is not a key file: Expected `object`"),
    "not UTF-8": (text(b'{"version":1,"keys":[{"note":"\xff"}]}'), "is not a key file"),
    "of tomorrow": (text(b'{"version":2,"keys":[]}'), "has version 2, and this orchctl knows version 1"),
    "a short digest": (edited(sha256="ab" * 31), r"matching regex .* at `\$\.keys\[0\]\.sha256`"),
    "a digest with CRLF": (edited(sha256="ab" * 32 + "\r\n"), "matching regex"),
    "no scope": (edited(scopes=[]), "Expected `array` of length >= 1"),
    "an unknown scope": (edited(scopes=["ok_secret"]), r"an unknown or wrong word - at `\$\.keys\[0\]\.scopes"),
    "an unknown field": (edited(ok_secret=1), "an unknown or wrong word"),
    "a local time": (edited(expires="2026-05-01T12:00:00"), "timezone"),
    "a date that is none": (edited(expires="soon"), "an unknown or wrong word"),
    "the same key twice": (twice, "has the same id in two keys"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_key_file_is_refused_with_a_sentence(path: Path, name: str) -> None:
    spoil, words = BAD[name]
    spoil(path)

    with pytest.raises(KeysError, match=words) as refused:
        read_keys(path, {})

    assert "ok_secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def identity(path: Path) -> tuple[int, ...]:
    found = path.lstat()
    return found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns


@pytest.mark.parametrize("name", BAD)
def test_a_bad_key_file_is_not_edited(path: Path, name: str) -> None:
    BAD[name][0](path)
    before = identity(path)

    with pytest.raises(KeysError), changing_keys(path, {}):
        pass

    assert identity(path) == before


def test_line_ends_of_another_system_change_nothing(path: Path) -> None:
    before = read_keys(path, {})

    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))

    assert read_keys(path, {}) == before


def test_a_file_of_systemds_credentials_may_show_its_access_list_as_rights_of_the_group(path: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(path.parent)}
    path.chmod(0o440)

    assert len(read_keys(path, environ).keys) == 1
    with pytest.raises(KeysError, match="others may read"):
        read_keys(path, {"CREDENTIALS_DIRECTORY": str(path.parent.parent)})
    path.chmod(0o444)
    with pytest.raises(KeysError, match="others may read"):
        read_keys(path, environ)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
def test_a_file_of_somebody_else_is_refused_unless_its_folder_is_theirs_and_root_asks(path: Path) -> None:
    os.chown(path, 4321, 4321)
    with pytest.raises(KeysError, match="belongs to user 4321, not to user 0"):
        read_keys(path, {})
    os.chown(path.parent, 4321, 4321)

    a_key(path)

    assert len(read_keys(path, {}).keys) == 2
    assert path.stat().st_uid == 4321, "root's edit leaves the file to the daemon's user"


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(KeysError, match=r"the folder .* cannot be used: "):
        a_key(tmp_path / "file" / "keys.json")


def test_keys_cost_no_import_of_pydantic_yaml_or_asyncio() -> None:
    code = "import sys, supervisor.config.keys; print({'pydantic', 'yaml', 'asyncio'} & set(sys.modules))"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert result.stdout.strip() == "set()"
