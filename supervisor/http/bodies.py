"""Request bodies: from bytes to a checked Struct, or a refusal that names the field and never repeats what was sent.

msgspec refuses unknown fields, wrong types, values out of bounds, lone surrogates, NaN, broken UTF-8, a byte-order
mark and anything after the document. Nesting needs no counter: no Struct here is deeper than three levels, and the
first value of a wrong type ends the parse before what is inside it is looked at. What msgspec lets through is a key
that comes twice (RFC 8259 §4 leaves its meaning open), so that is found here.
"""

import json
import re
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import UNSET, Struct

from supervisor.core.refusals import Refused
from supervisor.wire.codes import Code, Reason

T = TypeVar("T", bound=Struct)

_KEY_END = re.compile(rb'"[ \t\r\n]*:')
_PLACE = re.compile(r" - at `\$([A-Za-z0-9_.\[\]]{0,64})`\Z")
_UNKNOWN = re.compile(r"Object contains unknown field `([A-Za-z_][A-Za-z0-9_]{0,31})`")
_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)|\[(\d+|\.\.\.)\]")


class Body(Generic[T]):
    """The decoder of one kind of request body."""

    def __init__(self, struct: type[T]) -> None:
        # `_keys_of` counts on it: a default would be a field that is set without having been sent.
        assert all(f.default is UNSET or f.required for f in msgspec.structs.fields(struct)), struct
        self._decode = msgspec.json.Decoder(struct).decode

    def parse(self, body: bytes) -> T | Refused:
        """The Struct, or INVALID_PARAMS with reason json (not a JSON document) or field (not the one asked for)."""
        try:
            parsed = self._decode(body)
        except msgspec.ValidationError as error:
            return _field_refusal(str(error))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return invalid("The body is not one valid JSON document in UTF-8.", Reason.JSON)
        if has_duplicate_keys(body, parsed):
            return invalid("A key comes twice in one JSON object.", Reason.JSON)
        return parsed


def invalid(message: str, reason: Reason) -> Refused:
    """INVALID_PARAMS."""
    return Refused(code=Code.INVALID_PARAMS, message=message, reason=reason)


def has_duplicate_keys(body: bytes, parsed: Struct) -> bool:
    """Whether a key came twice in `body`, a valid document that gave `parsed`.

    Every key ends in a quote and a colon, and every field of `parsed` was a key. So as many of those as fields means
    that none came twice, and only text that holds them itself, such as a prompt about JSON, needs the slow look.
    """
    if len(_KEY_END.findall(body)) == _keys_of(parsed):
        return False
    try:
        json.loads(body, object_pairs_hook=_once)
    except _DuplicateKeyError:
        return True
    return False


class _DuplicateKeyError(Exception):
    """Leaves the standard library's parser."""


def _once(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise _DuplicateKeyError


def _keys_of(parsed: Struct) -> int:
    count = 0
    for name in parsed.__struct_fields__:
        value = getattr(parsed, name)
        if value is not UNSET:
            count += 1
            if isinstance(value, Struct):
                count += _keys_of(value)
    return count


def _field_refusal(text: str) -> Refused:
    place = _PLACE.search(text)
    pointer = _pointer(place[1]) if place else ""
    detail = text[: place.start()] if place else text
    if detail.startswith("Object contains unknown field"):
        # The name is the caller's own text, so only a plain one is said again.
        name = _UNKNOWN.match(detail)
        problem = f"holds an unknown field `{name[1]}`" if name else "holds an unknown field"
    elif detail.startswith("Object missing"):
        problem = f"misses the {detail.removeprefix('Object missing ')}"
    elif detail.startswith("Expected"):
        problem = f"must be different: {detail[0].lower()}{detail[1:]}"
    else:
        problem = "has a value that is not allowed"
    return invalid(f"{pointer or 'The body'} {problem}.", Reason.FIELD)


def _pointer(path: str) -> str:
    """`.inputs[3]` as the JSON pointer `/inputs/3` (RFC 6901)."""
    return "".join(f"/{name or index}" for name, index in _STEP.findall(path))
