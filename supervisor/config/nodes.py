"""YAML text to nodes that know where they stood. Constructs no object: tags are refused, a scalar is one of six types.

The language is YAML as PyYAML tokenises it, with the scalars of the YAML 1.2 core schema: `no` and `on` are texts,
`010` is ten and `1:30` is a text, so that no pool id or time turns into something else.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import yaml

from supervisor.config.problems import Loc, Place

NODES_MAX = 20_000
DEPTH_MAX = 32

Scalar = str | int | float | bool | None

_NULL = re.compile(r"null|Null|NULL|~|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
# 18 digits: whatever is longer is no figure of a config, and would cost quadratic time to read as an int.
_INT = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class _Mark(Protocol):
    """A position as both scanners of PyYAML give it, counted from 0."""

    line: int
    column: int


class DocumentError(Exception):
    """The text is not a usable YAML document: where, and one sentence why."""

    def __init__(self, place: Place, loc: Loc, message: str) -> None:
        super().__init__(message)
        self.place = place
        self.loc = loc
        self.message = message


@dataclass(frozen=True, slots=True)
class Leaf:
    """A scalar."""

    place: Place
    value: Scalar


@dataclass(frozen=True, slots=True)
class ListNode:
    """A sequence."""

    place: Place
    items: list["Node"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a mapping; `place` is where the key stands."""

    place: Place
    key: str
    node: "Node"


@dataclass(frozen=True, slots=True)
class MapNode:
    """A mapping as written: keys are distinct, merges are not yet applied."""

    place: Place
    entries: list[Entry]


Node = Leaf | ListNode | MapNode


def compose(text: str) -> Node:
    """The root of the one document in `text`; an empty text is null. Raises DocumentError."""
    try:
        return _Composer(yaml.parse(text, Loader=yaml.SafeLoader)).document()
    except yaml.reader.ReaderError as error:
        place = _place_at(text, error.position)
        raise DocumentError(place, (), f"character 0x{ord(text[error.position]):02x} is not allowed") from error
    except yaml.MarkedYAMLError as error:
        place = _place(error.problem_mark or error.context_mark)
        raise DocumentError(place, (), f"not valid YAML: {error.problem or error.context}") from error


class _Composer:
    """Events to nodes. An anchor is known only once its node is complete, so nothing can contain itself."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events
        self._anchors: dict[str, Node] = {}
        self._nodes = 0

    def document(self) -> Node:
        root: Node = Leaf(Place(1, 1), None)
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise DocumentError(_place(event.start_mark), (), "only one YAML document is allowed in a config")
                root = self._node(next(self._events), ())
        return root

    def _node(self, event: yaml.Event, loc: Loc) -> Node:
        place = _place(event.start_mark)
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise DocumentError(place, (), f"more than {NODES_MAX} values: this is not a config")
        if len(loc) > DEPTH_MAX:
            raise DocumentError(place, (), f"nested more than {DEPTH_MAX} levels deep")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, place, loc)
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent), event
        if event.tag is not None:
            raise DocumentError(place, loc, f"tags are not allowed: {event.tag!r}")
        node = self._content(event, place, loc)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: yaml.AliasEvent, place: Place, loc: Loc) -> Node:
        node = self._anchors.get(event.anchor or "")
        if node is None:
            raise DocumentError(place, loc, f"no complete value is named &{event.anchor} before this alias")
        return node

    def _content(self, event: yaml.Event, place: Place, loc: Loc) -> Node:
        if isinstance(event, yaml.ScalarEvent):
            is_plain = event.implicit[0]
            return Leaf(place, _resolve(event.value) if is_plain else event.value)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(item := next(self._events), yaml.SequenceEndEvent):
                items.append(self._node(item, (*loc, len(items))))
            return ListNode(place, items)
        return MapNode(place, self._entries(loc))

    def _entries(self, loc: Loc) -> list[Entry]:
        entries: dict[str, Entry] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            place = _place(event.start_mark)
            if not isinstance(event, yaml.ScalarEvent) or event.tag is not None:
                raise DocumentError(place, loc, "a key must be a plain text")
            key = event.value
            if key in entries:
                first = entries[key].place.line
                raise DocumentError(place, (*loc, key), f"duplicate key, first used on line {first}")
            entries[key] = Entry(place, key, self._node(next(self._events), (*loc, key)))
        return list(entries.values())


def _resolve(text: str) -> Scalar:
    """The value of a plain scalar in the YAML 1.2 core schema (section 10.3.2), without its octal and hex forms."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return bool(_TRUE.fullmatch(text))
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if special := _SPECIAL.fullmatch(text):
        return float(special.group(0).replace(".", ""))
    return text


def _place(mark: _Mark | None) -> Place:
    return Place(mark.line + 1, mark.column + 1) if mark is not None else Place(1, 1)


def _place_at(text: str, position: int) -> Place:
    before = text[:position].split("\n")
    return Place(len(before), len(before[-1]) + 1)
