"""Turns what pydantic found into sentences for an operator, each with its line, column and JSON pointer."""

from difflib import get_close_matches

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from supervisor.config.document import Document
from supervisor.config.fields import quoted
from supervisor.config.problems import Loc, Problem, pointer_of
from supervisor.config.schema import known_keys

UNKNOWN_KEY = "extra_forbidden"

_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "path_type": "a path",
    "string_type": "a text (put it in quotes)",
    "tuple_type": "a list",
}


def find_errors(error: ValidationError) -> list[ErrorDetails]:
    """Everything that pydantic found, without shadows of other findings."""
    return [each for each in error.errors(include_url=False) if not _is_shadow(each)]


def loc_of(error: ErrorDetails) -> Loc:
    """The place in the document; pydantic marks a bad key by a last step that is no key of the document."""
    loc = error["loc"]
    return loc[:-1] if loc and loc[-1] == "[key]" else loc


def describe(error: ErrorDetails, document: Document, file: str) -> Problem:
    """One problem, at the key where that is what is wrong, else at the value or the nearest thing around it."""
    loc = loc_of(error)
    is_key = error["type"] == UNKNOWN_KEY or error["loc"] != loc
    place = document.place_of_key(loc) if is_key else document.place_of(loc)
    return Problem(file, place.line, place.column, pointer_of(loc), _message(error, loc))


def _is_shadow(error: ErrorDetails) -> bool:
    """Whether this follows from another problem: a default that needs a bad value, a count of the good items."""
    if error["type"] == "too_short":
        return bool(len(error["input"]) >= error["ctx"]["min_length"])
    return error["type"] == "default_factory_not_called"


def _message(error: ErrorDetails, loc: Loc) -> str:
    kind = error["type"]
    if kind == UNKNOWN_KEY:
        return f"unknown key{_hint(loc)}"
    if kind == "missing":
        return "is required"
    if kind == "too_short":
        return f"should have at least {error['ctx']['min_length']} item"
    if kind == "too_long":
        return f"should have at most {error['ctx']['max_length']} items"
    if "ctx" in error and "text" in error["ctx"]:
        return str(error["ctx"]["text"])
    expected = _EXPECTED.get(kind)
    message = f"should be {expected}" if expected else error["msg"].removeprefix("Input ")
    return message + _found(error["input"], loc)


def _found(value: object, loc: Loc) -> str:
    """What stands there instead. The environment of an engine may hold secrets and is not repeated."""
    if "env" in loc:
        return ""
    if isinstance(value, str):
        return f", not {quoted(value)}"
    if isinstance(value, dict):
        return ", not a mapping"
    if isinstance(value, list | tuple):
        return ", not a list"
    if value is None:
        return ", not empty"
    return f", not {str(value).lower() if isinstance(value, bool) else value}"


def _hint(loc: Loc) -> str:
    known = known_keys(loc[:-1])
    close = get_close_matches(str(loc[-1]), known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known here: {', '.join(known)}" if known else ""
