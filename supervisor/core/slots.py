"""The slots of one engine process: which are free, which a run has, and whose KV lies in them. O(1) each.

A free slot is *cold*, or *warm*: the KV of one session lies in it. A run that has no warm slot of its own takes a cold
one; only where none is left it takes the warm one whose session was served longest ago. What that means for the
session is `sessions`' to say. A new process has a new table.
"""

from collections.abc import Iterator

SessionKey = tuple[str, bytes]
"""Tenant and the caller's session: one tenant's id never means another's session."""


class SlotTable:
    """Slots by number, 0 first. A slot holds the KV of one session at most."""

    __slots__ = ("_cold", "_taken", "_warm")

    def __init__(self, count: int = 0) -> None:
        self._cold = dict.fromkeys(range(count - 1, -1, -1))
        self._warm: dict[int, SessionKey] = {}
        self._taken: dict[int, tuple[int, SessionKey | None]] = {}

    @property
    def free(self) -> int:
        """Slots without a run."""
        return len(self._cold) + len(self._warm)

    @property
    def has_cold(self) -> bool:
        """Whether a slot is free in which nobody's KV lies."""
        return bool(self._cold)

    def take(self, run_id: int, key: SessionKey | None, wanted: int | None) -> tuple[int, SessionKey | None]:
        """Give a run its slot: `wanted` where it must be that one. Also gives the session whose KV lay in it."""
        holder = None
        if wanted is None and self._cold:
            slot, _ = self._cold.popitem()
        else:
            slot = next(iter(self._warm)) if wanted is None else wanted
            holder = self._warm.pop(slot, None)
            if holder is None:
                del self._cold[slot]
        self._taken[run_id] = (slot, key)
        return slot, holder

    def session_of(self, run_id: int) -> SessionKey | None:
        """The session that a run on a slot belongs to."""
        taken = self._taken.get(run_id)
        return None if taken is None else taken[1]

    def give_back(self, run_id: int, *, is_kept: bool) -> None:
        """A run's slot is free again; `is_kept`: its session's KV stays in it. Unknown runs are of another life."""
        taken = self._taken.pop(run_id, None)
        if taken is None:
            return
        slot, key = taken
        if is_kept and key is not None:
            self._warm[slot] = key
        else:
            self._cold[slot] = None

    def forget(self, slot: int) -> None:
        """The KV in a free slot is nobody's any more."""
        if self._warm.pop(slot, None) is not None:
            self._cold[slot] = None

    def sessions(self) -> Iterator[SessionKey]:
        """Sessions whose KV lies in a slot, or is being put there."""
        yield from self._warm.values()
        yield from (key for _, key in self._taken.values() if key is not None)

    def warm(self) -> dict[int, SessionKey]:
        """Free slots with KV in them."""
        return dict(self._warm)

    def taken(self) -> dict[int, int]:
        """Slot of each run."""
        return {run_id: slot for run_id, (slot, _) in self._taken.items()}
