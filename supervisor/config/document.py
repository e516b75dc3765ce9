"""A YAML document as plain values, with the place of every key and value: dict, list, str, int, float, bool, None.

Anchors, aliases and `<<` merges are copied out within the bounds of the nodes, which is what stops an alias bomb.
"""

from dataclasses import dataclass, field

from supervisor.config.nodes import (
    DEPTH_MAX,
    NODES_MAX,
    DocumentError,
    Entry,
    Leaf,
    ListNode,
    MapNode,
    Node,
    Scalar,
    compose,
)
from supervisor.config.problems import Loc, Place

MERGE_KEY = "<<"

Value = Scalar | list["Value"] | dict[str, "Value"]


@dataclass(frozen=True, slots=True)
class Document:
    """The value of a document, and for each place in it where its key and its value begin in the text."""

    value: Value
    keys: dict[Loc, Place] = field(default_factory=dict)
    values: dict[Loc, Place] = field(default_factory=dict)

    def place_of(self, loc: Loc) -> Place:
        """Where the value at `loc` begins, or the nearest value around it."""
        while loc and loc not in self.values:
            loc = loc[:-1]
        return self.values.get(loc, Place(1, 1))

    def place_of_key(self, loc: Loc) -> Place:
        """Where the key of the entry at `loc` stands; for a list item, where it begins."""
        return self.keys.get(loc) or self.place_of(loc)


def parse_document(text: str) -> Document:
    """The one document in `text`; an empty text is null. Raises DocumentError."""
    return _Expander().expand(compose(text))


class _Expander:
    """Nodes to plain values: aliases are copied out and merges applied, each copy counted."""

    def __init__(self) -> None:
        self._keys: dict[Loc, Place] = {}
        self._values: dict[Loc, Place] = {}
        self._nodes = 0

    def expand(self, root: Node) -> Document:
        return Document(self._value(root, ()), self._keys, self._values)

    def _spend(self, place: Place, loc: Loc) -> None:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise DocumentError(place, (), f"aliases expand to more than {NODES_MAX} values")
        if len(loc) > DEPTH_MAX:
            raise DocumentError(place, (), f"aliases expand to more than {DEPTH_MAX} levels")

    def _value(self, node: Node, loc: Loc) -> Value:
        self._spend(node.place, loc)
        self._values[loc] = node.place
        if isinstance(node, Leaf):
            return node.value
        if isinstance(node, ListNode):
            return [self._value(item, (*loc, index)) for index, item in enumerate(node.items)]
        value: dict[str, Value] = {}
        for entry in self._merged(node, loc, 0).values():
            self._keys[(*loc, entry.key)] = entry.place
            value[entry.key] = self._value(entry.node, (*loc, entry.key))
        return value

    def _merged(self, node: MapNode, loc: Loc, depth: int) -> dict[str, Entry]:
        """Own entries win over merged ones, and the earlier of several merged mappings over the later."""
        if depth > DEPTH_MAX:
            raise DocumentError(node.place, loc, f"merges nest more than {DEPTH_MAX} levels deep")
        own = {entry.key: entry for entry in node.entries if entry.key != MERGE_KEY}
        for entry in node.entries:
            if entry.key != MERGE_KEY:
                continue
            for base in _merge_bases(entry, loc):
                self._spend(entry.place, loc)
                for key, inherited in self._merged(base, loc, depth + 1).items():
                    self._spend(entry.place, loc)
                    own.setdefault(key, inherited)
        return own


def _merge_bases(entry: Entry, loc: Loc) -> list[MapNode]:
    bases = entry.node.items if isinstance(entry.node, ListNode) else [entry.node]
    maps = [base for base in bases if isinstance(base, MapNode)]
    if len(maps) != len(bases):
        raise DocumentError(entry.place, (*loc, MERGE_KEY), "<< takes a mapping or a list of mappings")
    return maps
