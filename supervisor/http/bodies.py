"""Request bodies: from bytes to a checked Struct, or a refusal that names the field and never repeats what was sent.

msgspec refuses unknown fields, wrong types, values out of bounds, lone surrogates, NaN, broken UTF-8, a byte-order
mark and anything after the document. Nesting needs no counter: no Struct here is deeper than three levels, and the
first value of a wrong type ends the parse before what is inside it is looked at. Two things are left to this module:

1. A body of 1 MiB may hold 250,000 strings, each of which costs the parser an object: the bound is `STRINGS_MAX`, and
   it holds before the parse. So no body keeps the event loop for longer than a few passes over its bytes.
2. A key that comes twice (RFC 8259 §4 leaves its meaning open) passes msgspec, so it is found here.
"""

import re
from typing import Generic, TypeVar

import msgspec
from msgspec import UNSET, Struct

from supervisor.core.refusals import Refused
from supervisor.wire.codes import Code, Reason

T = TypeVar("T", bound=Struct)

STRINGS_MAX = 1024
"""Strings in one body, keys included; the largest valid task has about 300."""

_PLACE = re.compile(r" - at `\$([A-Za-z0-9_.\[\]]{0,64})`\Z")
_UNKNOWN = re.compile(r"Object contains unknown field `([A-Za-z_][A-Za-z0-9_]{0,31})`")
_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)|\[(\d+|\.\.\.)\]")


class Body(Generic[T]):
    """The decoder of one kind of request body."""

    def __init__(self, struct: type[T]) -> None:
        # `_strings_of` counts on it: a default would be a field that is set without having been sent.
        assert all(f.default is UNSET or f.required for f in msgspec.structs.fields(struct)), struct
        self._decode = msgspec.json.Decoder(struct).decode

    def parse(self, body: bytes) -> T | Refused:
        """The Struct, or INVALID_PARAMS with reason json (not a JSON document) or field (not the one asked for)."""
        strings = count_strings(body)
        if strings > STRINGS_MAX:
            return invalid(f"The body has more than {STRINGS_MAX} strings.", Reason.JSON)
        try:
            parsed = self._decode(body)
        except msgspec.ValidationError as error:
            return _field_refusal(str(error))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return invalid("The body is not one valid JSON document in UTF-8.", Reason.JSON)
        if strings != _strings_of(parsed):
            return invalid("A key comes twice in one JSON object.", Reason.JSON)
        return parsed


def invalid(message: str, reason: Reason) -> Refused:
    """INVALID_PARAMS."""
    return Refused(code=Code.INVALID_PARAMS, message=message, reason=reason)


def count_strings(body: bytes) -> int:
    """How many strings, keys and values, a JSON document has. Of what is no JSON it says nothing.

    A run of backslashes begins where an escape begins, so its pairs are escaped backslashes, counted from the left, and
    a quote after what then is left of it is text. All other quotes begin or end a string.
    """
    if b"\\" in body:
        body = body.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    return body.count(b'"') // 2


def _strings_of(value: object) -> int:
    """How many strings gave `value`, if every key came once. A key that came twice adds its own at least."""
    if isinstance(value, str):
        return 1
    if isinstance(value, list):
        return sum(map(_strings_of, value))
    if isinstance(value, Struct):
        given = (getattr(value, name) for name in value.__struct_fields__)
        return sum(1 + _strings_of(inner) for inner in given if inner is not UNSET)
    return 0


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
