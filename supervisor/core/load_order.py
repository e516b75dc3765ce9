"""The serving members of a set by load: which one is the least loaded, at a cost that does not grow with their number.

A heap with an entry for each change of a load. An entry that no longer tells its member's load is dropped when it comes
to the top, so nothing has to be found and removed.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Generic, Protocol, TypeVar

_Entry = tuple[float, int, int]
_REBUILD_PER_MEMBER = 8


class Loaded(Protocol):
    """What has slots, of which some are taken."""

    slots: int

    @property
    def pool_id(self) -> str:
        """Its name."""

    @property
    def load(self) -> int:
        """Slots that are taken."""


M = TypeVar("M", bound=Loaded)


class LoadOrder(Generic[M]):
    """Members by (share of slots taken, place); the places are in the order in which the members were given."""

    __slots__ = ("_heap", "_members", "_places")

    def __init__(self) -> None:
        self._members: list[M] = []
        self._places: dict[str, int] = {}
        self._heap: list[_Entry] = []

    def rebuild(self, serving: list[M]) -> None:
        """Begin anew with these members."""
        self._members = serving
        self._places = {member.pool_id: place for place, member in enumerate(serving)}
        self._heap = [self._entry(place) for place in range(len(serving))]
        heapify(self._heap)

    def note(self, replica: M) -> None:
        """The load of a member changed; one that does not serve is no business of this order."""
        place = self._places.get(replica.pool_id)
        if place is None:
            return
        heappush(self._heap, self._entry(place))
        if len(self._heap) > _REBUILD_PER_MEMBER * len(self._members) + _REBUILD_PER_MEMBER:
            self.rebuild(self._members)

    def first(self, can_take: Callable[[M], bool]) -> M | None:
        """The least loaded member that can take a task; a full one ends the search, for none after it has room."""
        passed: list[_Entry] = []
        found = None
        while self._heap and found is None:
            entry = self._heap[0]
            member = self._members[entry[1]]
            if entry != self._entry(entry[1]):
                heappop(self._heap)
            elif can_take(member):
                found = member
            elif entry[0] >= 1:
                break
            else:  # room, but not for this task: look behind it, and put it back
                passed.append(heappop(self._heap))
        for entry in passed:
            heappush(self._heap, entry)
        return found

    def _entry(self, place: int) -> _Entry:
        member = self._members[place]
        return member.load / member.slots, place, member.load
