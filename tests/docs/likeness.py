"""Whether a program printed what a page says it prints: the same fields of the same types, whatever the moment.

Ids, digests and generated text may be any; times, sizes and speeds any number of the same sign of being there; every
other value is what stands on the page. `…` stands for what a page leaves out: a part of a text, the further items of a
list, the further fields of an object (`"…": "…"`), the further frames of a stream.
"""

import json
import re
from fnmatch import fnmatchcase
from typing import Any

ELISION = "…"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FREE_NUMBERS = re.compile(
    r".*(_ms(_remaining)?|_s|_bytes|_mib|_percent)$|(pid|tokens_in|tokens_out_total|embedding|score)$"
)
_FREE_TEXTS = {"t", "text"}
_SAMPLED = re.compile(r"predicted_start_error_p\d+_percent")
"""Null until a task had to wait, which depends on how fast the machine is."""


def mismatch(kind: str, expected: str, actual: str) -> str | None:
    """Where they differ, in one sentence; None where they do not."""
    compare = {"http": _http, "json": _json, "sse": _sse, "text": _text, "": _nothing}[kind]
    return compare(expected.strip("\n"), actual.replace("\r\n", "\n").strip("\n"))


def _nothing(expected: str, actual: str) -> str | None:
    return f"it printed {actual[:200]!r}" if actual else None


def _http(expected: str, actual: str) -> str | None:
    expected_head, _, expected_body = expected.partition("\n\n")
    head, _, body = actual.partition("\n\n")
    status, *lines = head.split("\n")
    wanted_status, *wanted = expected_head.split("\n")
    if status.strip() != wanted_status.strip():
        return f"the status is {status!r}, not {wanted_status!r}"
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    for line in wanted:
        name, value = line.split(": ", 1)
        found = headers.get(name.lower())
        if found is None or not _like_text(value, found, free=value.isdigit() and found.isdigit()):
            return f"the header {name} is {found!r}, not {value!r}"
    if not expected_body or expected_body == ELISION:
        return None if expected_body or not body else f"there is a body: {body[:200]!r}"
    return _sse(expected_body, body) if expected_body.startswith("id: ") else _json(expected_body, body)


def _json(expected: str, actual: str) -> str | None:
    try:
        return _unlike(json.loads(expected), json.loads(actual), "")
    except json.JSONDecodeError:
        return f"it is no JSON: {actual[:200]!r}"


def _unlike(expected: Any, actual: Any, where: str) -> str | None:
    if _SAMPLED.search(where) and {_kind(expected), _kind(actual)} <= {"number", "null"}:
        return None
    if _kind(expected) != _kind(actual):
        return f"{where or 'the answer'} is a {_kind(actual)} ({actual!r}), not a {_kind(expected)}"
    name = where.rsplit(".", 1)[-1].partition("[")[0]
    if isinstance(expected, dict):
        return _unlike_objects(expected, actual, where)
    if isinstance(expected, list):
        return _unlike_lists(expected, actual, where)
    if isinstance(expected, str):
        is_alike = _like_text(expected, actual, free=name in _FREE_TEXTS)
    else:
        is_number = not isinstance(expected, bool) and expected is not None
        is_alike = expected == actual or (is_number and bool(_FREE_NUMBERS.match(name)))
    return None if is_alike else f"{where} is {actual!r}, not {expected!r}"


def _unlike_objects(expected: dict[str, Any], actual: dict[str, Any], where: str) -> str | None:
    missing = expected.keys() - actual.keys() - {ELISION}
    more = set() if ELISION in expected else actual.keys() - expected.keys()
    if missing or more:
        return f"{where or 'the answer'} lacks {sorted(missing)} and has {sorted(more)} more"
    found = (_unlike(expected[name], actual[name], f"{where}.{name}") for name in expected if name != ELISION)
    return next((problem for problem in found if problem), None)


def _unlike_lists(expected: list[Any], actual: list[Any], where: str) -> str | None:
    is_open = expected[-1:] == [ELISION]
    items = expected[:-1] if is_open else expected
    if len(actual) < len(items) or (len(actual) > len(items) and not is_open):
        return f"{where} has {len(actual)} items, not {len(items)}"
    found = (_unlike(item, actual[at], f"{where}[{at}]") for at, item in enumerate(items))
    return next((problem for problem in found if problem), None)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return {str: "string", list: "list", dict: "object", type(None): "null"}[type(value)]


def _like_text(expected: str, actual: str, *, free: bool) -> bool:
    if free or (_UUID.fullmatch(expected) and _UUID.fullmatch(actual)):
        return True
    pattern = re.sub(r"([\[\]*?])", r"[\1]", expected).replace(ELISION, "*")
    return fnmatchcase(actual, pattern)


def _text(expected: str, actual: str) -> str | None:
    """Each line of the page, in this order, others between them; numbers are free behind the last space."""
    lines = iter(actual.split("\n"))
    for wanted in expected.split("\n"):
        pattern = re.sub(r" [0-9.e+-]+$", f" {ELISION}", wanted)
        if wanted != ELISION and not any(_like_text(pattern, line, free=False) for line in lines):
            return f"no line like {wanted!r} in its place"
    return None


def _sse(expected: str, actual: str) -> str | None:
    wanted = expected.split("\n\n")
    frames = [frame for frame in actual.split("\n\n") if frame and not frame.startswith(":") and "metrics" not in frame]
    if ELISION in wanted:
        at = wanted.index(ELISION)
        tail = len(wanted) - at - 1
        frames = frames[:at] + frames[len(frames) - tail :]
        wanted = wanted[:at] + wanted[at + 1 :]
    if len(frames) != len(wanted):
        return f"there are {len(frames)} frames, not {len(wanted)}"
    found = (_unlike_frames(page, frame) for page, frame in zip(wanted, frames, strict=True))
    return next((problem for problem in found if problem), None)


def _unlike_frames(expected: str, actual: str) -> str | None:
    *head, data = expected.split("\n")
    *actual_head, actual_data = actual.split("\n")
    if head != actual_head:
        return f"the frame {actual_head} is not {head}"
    return _json(data.removeprefix("data: "), actual_data.removeprefix("data: "))
