"""Downloads that were broken off and that nobody works on: counted, and thrown away."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from supervisor.store.flight import Berth
from supervisor.store.folders import held_folder


def count_leftovers(partial: Path) -> int:
    """How many there are, with those that are under way. Raises StoreError."""
    with _held(partial) as here:
        return 0 if here is None else len(_keys(here))


def clear_leftovers(partial: Path) -> int:
    """Throw away all but those that are under way; gives how many. Raises StoreError."""
    with _held(partial) as here:
        if here is None:
            return 0
        gone = sum(Berth(here, key).clear() for key in _keys(here))
        for lock in list(here.glob("*.lock")):
            Berth(here, lock.stem).clear()
        return gone


@contextmanager
def _held(partial: Path) -> Iterator[Path | None]:
    """The folder of downloads, held; None where there is none."""
    if not os.path.lexists(partial.parent):
        yield None
        return
    with held_folder(partial.parent) as store:
        if not os.path.lexists(store / partial.name):
            yield None
            return
        with held_folder(store, partial.name) as here:
            yield here


def _keys(partial: Path) -> list[str]:
    with os.scandir(partial) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
