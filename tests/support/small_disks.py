"""Small file systems of a test's own, to be filled up and broken. They need root and the right to mount."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

IMAGE_BYTES = 16 * 2**20


def _run(*command: str) -> None:
    """Run it, or skip the test and say why."""
    if os.geteuid() != 0 or shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} needs root, and to be installed")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{' '.join(command)}: {done.stderr.strip()}")


@contextmanager
def a_tmpfs(path: Path, *, options: str) -> Iterator[Path]:
    """A file system in memory at `path`."""
    path.mkdir(mode=0o700)
    _run("mount", "-t", "tmpfs", "-o", f"mode=700,{options}", "tmpfs", str(path))
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


class BreakableDisk:
    """An ext4 file system in a file; an error makes it read-only, as a failing disk does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._image = path.with_name("disk.img")
        with self._image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        _run("mkfs.ext4", "-q", str(self._image))
        path.mkdir(mode=0o700)
        self._mount()

    def _mount(self) -> None:
        _run("mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.path))
        self.path.chmod(0o700)

    def break_down(self) -> None:
        """From now on every write fails with EROFS, also through open descriptors."""
        source = subprocess.run(
            ["findmnt", "-no", "SOURCE", str(self.path)], check=True, capture_output=True, text=True
        ).stdout.strip()
        Path(f"/sys/fs/ext4/{Path(source).name}/trigger_fs_error").write_text("1")

    def repair(self) -> None:
        """What an operator does: check a copy of the disk, and mount that in its place."""
        subprocess.run(["umount", "-l", str(self.path)], check=True)
        fresh = self._image.with_suffix(".repaired")
        shutil.copyfile(self._image, fresh)
        self._image = fresh
        subprocess.run(["e2fsck", "-fy", str(fresh)], check=False, capture_output=True)
        self._mount()

    def close(self) -> None:
        """Unmount it."""
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", "-l", str(self.path)], check=True, capture_output=True)


def fill_up(folder: Path) -> Path:
    """Write until nothing more fits; gives the file that takes the room."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return filler


def use_up_inodes(folder: Path) -> list[Path]:
    """Make empty files until no other can be made."""
    made: list[Path] = []
    with contextlib.suppress(OSError):
        while True:
            (folder / f"filler-{len(made)}").touch()
            made.append(folder / f"filler-{len(made)}")
    return made


def build_preload(source: Path, target: Path) -> Path:
    """Compile a library that is preloaded into a process."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(target), str(source)], check=True)
    return target
