"""Who holds memory of a GPU, in the core's words. A process that an engine of ours started counts as that engine.

Engines lead a session of their own, so the session of a process tells whose it is.
"""

import os
from collections.abc import Callable, Collection
from pathlib import Path

from supervisor.core.events import Event, Holder, MemoryHeld
from supervisor.runtime.gpus import DeviceSample, Inventory

STEP_MIB = 16
"""Less is noise: the core hears of a peak once it is as much higher."""
NAME_LENGTH_MAX = 15
_PROC = Path("/proc")


def holders_of(sample: DeviceSample, engines: Collection[int]) -> tuple[Holder, ...]:
    """The processes of one look, those of one engine added up; empty where the driver lists none."""
    held: dict[int, int] = {}
    for process in sample.processes or ():
        if process.used_mib is not None:
            owner = _owner_of(process.pid, engines)
            held[owner] = held.get(owner, 0) + process.used_mib
    return tuple(Holder(pid, mib, "" if pid in engines else _name_of(pid)) for pid, mib in held.items())


def _owner_of(pid: int, engines: Collection[int]) -> int:
    try:
        session = os.getsid(pid)
    except (OSError, OverflowError):
        return pid
    return session if session in engines else pid


def _name_of(pid: int) -> str:
    """The kernel's short name of a process: never its arguments, which may hold secrets."""
    try:
        name = (_PROC / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "gone"
    return "".join(char if char.isprintable() else "?" for char in name)[:NAME_LENGTH_MAX]


class HeldWatch:
    """Tells the core what processes hold, when it changed by more than a little."""

    def __init__(self, post: Callable[[Event], None], engines: Callable[[], Collection[int]]) -> None:
        self._post = post
        self._engines = engines
        self._told: tuple[tuple[str, int, int], ...] = ()

    def note(self, inventory: Inventory) -> None:
        """Take over one good look."""
        engines = self._engines()
        devices = tuple((uuid, holders_of(sample, engines)) for uuid, sample in inventory.samples.items())
        coarse = tuple(
            (uuid, holder.pid, holder.mib // STEP_MIB)
            for uuid, holders in devices
            for holder in holders
            if holder.pid in engines
        )
        if coarse != self._told:
            self._told = coarse
            self._post(MemoryHeld(devices))
