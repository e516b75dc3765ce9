"""Sums over the tenants of a fair lane by the round in which each will have gone: what is ahead of a given round.

A Fenwick tree over round numbers that holds only the nodes in use, and grows at its top. Update and query are
O(log rounds), whatever the number of tenants.
"""

from msgspec import Struct

from supervisor.core.lane import Ahead


class Sums(Struct, frozen=True):
    """Of some tenants: tasks and tokens that wait, and their credit in round r, `base + quantum * r`."""

    tasks: int = 0
    tokens: int = 0
    base: int = 0
    quantum: int = 0

    def plus(self, other: "Sums", sign: int = 1) -> "Sums":
        """Both together, or (-1) this without the other."""
        return Sums(
            self.tasks + sign * other.tasks,
            self.tokens + sign * other.tokens,
            self.base + sign * other.base,
            self.quantum + sign * other.quantum,
        )


_NONE = Sums()


class RoundSums:
    """Tenants by the round in which the last of their tasks goes."""

    __slots__ = ("_nodes", "_top", "_total")

    def __init__(self) -> None:
        self._nodes: dict[int, Sums] = {}  # node n covers the n & -n rounds up to n - 1
        self._top = 1
        self._total = _NONE

    def add(self, drained: int, sums: Sums, sign: int) -> None:
        """A tenant that has gone by round `drained` begins (1) or ceases (-1) to count."""
        node = drained + 1
        while self._top < node:
            self._top *= 2
            self._nodes[self._top] = self._total
        self._total = self._total.plus(sums, sign)
        while node <= self._top:
            now = self._nodes.get(node, _NONE).plus(sums, sign)
            if now == _NONE:
                self._nodes.pop(node, None)
            else:
                self._nodes[node] = now
            node += node & -node
        if self._total == _NONE:
            self._nodes.clear()
            self._top = 1

    def ahead(self, until: int, without: tuple[int, Sums] | None = None) -> Ahead:
        """What goes up to and in round `until`: all of those that are done by then, and the credit of the others.

        A credit counts as tasks by their mean size. `without` leaves one tenant aside, as it was added.
        """
        done, rest = self._until(until), self._total
        rest = rest.plus(done, -1)
        if without is not None:
            drained, own = without
            done, rest = (done.plus(own, -1), rest) if drained <= until else (done, rest.plus(own, -1))
        credit = min(max(rest.base + rest.quantum * until, 0), rest.tokens)
        return Ahead(done.tasks + credit * rest.tasks // max(rest.tokens, 1), done.tokens + credit)

    def _until(self, until: int) -> Sums:
        found, node = _NONE, min(until + 1, self._top)
        while node > 0:
            found = found.plus(self._nodes.get(node, _NONE))
            node &= node - 1
        return found
