"""Who has the files of a model in his hands: many who loaded them, or one who throws them away; never both.

The locks are the kernel's (flock), so they are gone with the process that had them, and work across users. Where a file
system has none, nobody holds anything, and what a process has open still counts.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from supervisor.config.catalogue import Entry
from supervisor.store.beneath import open_beneath

HOLD_WITHIN_S = 30.0
"""Longer than anybody who throws a model away may think: he asks the daemon once more while he has it alone."""
LOOK_EVERY_S = 0.02


def is_held(fd: int) -> bool:
    """Whether some process holds the file: a daemon does so with every file of a model that it has loaded."""
    if not _take(fd):
        return True
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def hold(fd: int, note_wait: Callable[[], None] = lambda: None, within_s: float = HOLD_WITHIN_S) -> None:
    """Hold the file for as long as this descriptor is open, beside others who do.

    While somebody has it alone, it is waited for the end of that; `note_wait` is called at each look and may raise. Who
    has it alone for longer than `within_s` is no `orchctl`: whoever may read a file can lock it, and must not thereby
    keep a model from being loaded, so then it is not held.
    """
    give_up_s = time.monotonic() + within_s
    while time.monotonic() < give_up_s:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            note_wait()
            time.sleep(LOOK_EVERY_S)
        except OSError:
            return
        else:
            return


@contextlib.contextmanager
def alone(entries: Iterable[Entry], root: Path) -> Iterator[bool]:
    """Have every file of these entries alone while inside: nobody begins to load them. Gives whether that is so."""
    with contextlib.ExitStack() as stack:
        yield all(_lock_alone(stack, root, place) for place in sorted(_places(entries)))


def _places(entries: Iterable[Entry]) -> set[str]:
    return {f"{entry.folder}/{file.path}" for entry in entries for file in entry.files}


def _lock_alone(stack: contextlib.ExitStack, root: Path, place: str) -> bool:
    try:
        fd = open_beneath(root, place)
    except OSError:
        return True  # gone or damaged: nobody can load it
    stack.callback(os.close, fd)
    return _take(fd)


def _take(fd: int) -> bool:
    """Whether nobody else holds the file: it is this descriptor's alone, where the file system has locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
