"""Which file an engine has loaded: the one that was verified, or one that was put in its place meanwhile.

1. Its name still leads to the verified file. 2. That is unchanged: size, mtime and ctime, which a rename changes too.
3. What the engine has mapped or open under that name is that very file. Reads /proc; decides nothing of what follows.
"""

import contextlib
import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True)
class FileHeld:
    """A verified file: the name that the engine was given, a descriptor of ours, and how it was when it was read."""

    path: Path
    fd: int
    status: os.stat_result


@dataclass(frozen=True, slots=True)
class Swap:
    """`cause` says what is wrong, None where all is well; `proof` is for the status."""

    cause: str | None
    proof: str = ""


def find_swap(files: Sequence[FileHeld], pid: int) -> Swap:
    """Look at the files and at all processes of the engine. Blocks."""
    for file in files:
        if (cause := _changed(file)) is not None:
            return Swap(cause)
    seen = tuple(_seen_by(pid))
    mapped = 0
    for file in files:
        own = _own_mapping(file.fd)
        if any(_names(file, name) and key not in own for name, key in seen):
            return Swap(f"model file {file.path.name} was replaced while the engine loaded it")
        mapped += any(key in own for _, key in seen)
    proof = "mapped by the engine" if mapped == len(files) else "unchanged since it was verified"
    return Swap(None, proof)


def _changed(file: FileHeld) -> str | None:
    now, then = os.fstat(file.fd), file.status
    try:
        there = file.path.stat()
    except OSError as error:
        return f"model file {file.path.name} is gone since it was verified: {error.strerror}"
    if not os.path.samestat(there, now):
        return f"model file {file.path.name} was replaced while the engine loaded it"
    if (now.st_size, now.st_mtime_ns, now.st_ctime_ns) != (then.st_size, then.st_mtime_ns, then.st_ctime_ns):
        return f"model file {file.path.name} changed while the engine loaded it"
    return None


def _own_mapping(fd: int) -> set[str]:
    """How the kernel names this file where it is mapped or open.

    Some file systems show another device in /proc/PID/maps than stat(2) does, so we map the file and look.
    """
    status = os.fstat(fd)
    keys = {_stat_key(status)}
    if status.st_size:
        with mmap.mmap(fd, min(mmap.PAGESIZE, status.st_size), prot=mmap.PROT_READ):
            keys.update(key for _, key in _maps(os.getpid()) if key.endswith(f" {status.st_ino}"))
    return keys


def _seen_by(pid: int) -> Iterator[tuple[str, str]]:
    """(name, key) of every file that the engine has mapped or open."""
    with contextlib.suppress(psutil.Error):
        engine = psutil.Process(pid)
        for process in (engine, *engine.children(recursive=True)):
            yield from _maps(process.pid)
            yield from _open_files(process.pid)


def _maps(pid: int) -> Iterator[tuple[str, str]]:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            row = line.split(maxsplit=5)
            if len(row) == 6 and row[5].startswith("/"):
                yield row[5], f"{row[3]} {row[4]}"


def _open_files(pid: int) -> Iterator[tuple[str, str]]:
    with contextlib.suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                yield str(fd.readlink()), _stat_key(fd.stat())


def _stat_key(status: os.stat_result) -> str:
    return f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x} {status.st_ino}"


def _names(file: FileHeld, name: str) -> bool:
    """Whether the engine's file goes by the name of this one.

    A folder may be swapped too, so of a GGUF the last part of the name is enough; other formats rightly share names
    such as `config.json`.
    """
    seen = name.removesuffix(_DELETED)
    is_gguf = file.path.suffix == ".gguf"
    return seen in {str(file.path), os.path.realpath(file.path)} or (is_gguf and Path(seen).name == file.path.name)
