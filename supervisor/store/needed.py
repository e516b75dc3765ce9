"""Which models of a store must stay: those that somebody names, and those that some process has in its hands."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from supervisor.config.catalogue import Catalogue, Entry
from supervisor.store.parts import open_model
from supervisor.store.shelf import is_held

_PROC = Path("/proc")


def digests_named(catalogue: Catalogue, refs: Iterable[str]) -> set[str]:
    """The digests behind names, digests and `repo:org/name`, as pools write them. A repository keeps all its models."""
    wanted = set(refs)
    return {
        entry.digest for entry in catalogue.models if {entry.name, entry.digest, f"repo:{entry.origin.repo}"} & wanted
    }


def digests_held(catalogue: Catalogue, root: Path) -> set[str]:
    """The digests of models that a daemon has loaded, or that any process of this machine has open or mapped."""
    opened = _files_in_use()
    return {entry.digest for entry in catalogue.models if _is_in_hands(entry, root, opened)}


def _is_in_hands(entry: Entry, root: Path, opened: set[str]) -> bool:
    home = root.resolve() / entry.folder
    if any(str(home / file.path) in opened for file in entry.files):
        return True
    with contextlib.suppress(OSError), open_model(root / entry.place, root) as parts:
        return any(is_held(part.fd) for part in parts)
    return False


def _files_in_use() -> set[str]:
    """Paths of open and mapped files of all processes that this user may look into."""
    found: set[str] = set()
    for process in _PROC.iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            found.update(str(fd.readlink()) for fd in (process / "fd").iterdir())
        with contextlib.suppress(OSError, UnicodeDecodeError):
            rows = (line.split(maxsplit=5) for line in (process / "maps").read_text().splitlines())
            found.update(row[5] for row in rows if len(row) == 6)
    return found
