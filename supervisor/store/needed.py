"""Which models of a store must stay: those that somebody names, and those that some process has in its hands."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from supervisor.config.catalogue import Catalogue, Entry
from supervisor.store.holding import is_held
from supervisor.store.parts import open_model

_PROC = Path("/proc")


def digests_named(catalogue: Catalogue, refs: Iterable[str]) -> set[str]:
    """The digests behind names, digests and `repo:org/name`, as pools write them. A repository keeps all its models."""
    wanted = set(refs)
    return {
        entry.digest for entry in catalogue.models if {entry.name, entry.digest, f"repo:{entry.origin.repo}"} & wanted
    }


def digests_held(catalogue: Catalogue, root: Path) -> set[str]:
    """The digests of models that a daemon has loaded, or that another process of this machine has open or mapped."""
    return digests_open(catalogue, root) | {entry.digest for entry in catalogue.models if _is_held(entry, root)}


def digests_open(catalogue: Catalogue, root: Path) -> set[str]:
    """Those that another process has open or mapped; all that one who has the files alone needs to ask."""
    opened = _files_in_use()
    return {entry.digest for entry in catalogue.models if _is_open(entry, root, opened)}


def _is_open(entry: Entry, root: Path, opened: set[str]) -> bool:
    home = root.resolve() / entry.folder
    return any(str(home / file.path) in opened for file in entry.files)


def _is_held(entry: Entry, root: Path) -> bool:
    with contextlib.suppress(OSError), open_model(root / entry.place, root) as parts:
        return any(is_held(part.fd) for part in parts)
    return False


def _files_in_use() -> set[str]:
    """Paths of open and mapped files of all other processes that this user may look into."""
    found: set[str] = set()
    for process in _PROC.iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            for fd in (process / "fd").iterdir():
                with contextlib.suppress(OSError):  # it was closed meanwhile; the others still count
                    found.add(str(fd.readlink()))
        with contextlib.suppress(OSError):
            lines = (process / "maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            found.update(row[5] for row in (line.split(maxsplit=5) for line in lines) if len(row) == 6)
    return found
