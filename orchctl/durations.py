"""Spans of time as people write and read them: `30s`, `1m30s`, `500ms` in; `3 h 12 min` out. Pure."""

import re

from orchctl.exits import usage

UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "min": 60_000, "h": 3_600_000}
DURATION_MS_MAX = 86_400_000
DAYS_MAX = 3_650
_DAYS = re.compile(r"(\d{1,5})d\Z", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|min|m|h)")
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|min|m|h))+\Z", re.ASCII)


def duration_ms(text: str, option: str) -> int:
    """Milliseconds of `30s`, `1m30s`, `500ms`, `2h` or `0`. Raises a usage VerbError that names `option`."""
    if text == "0":
        return 0
    if not _WHOLE.match(text) or len(text) > 32:
        raise usage(f"{option} wants a time with a unit, not {text!r}", "write it as 30s, 2m, 1h or 500ms")
    total = round(sum(float(number) * UNIT_MS[unit] for number, unit in _PART.findall(text)))
    if total > DURATION_MS_MAX:
        raise usage(f"{option} is at most 24h", "give a shorter time")
    return total


def lifetime_ms(text: str, option: str) -> int:
    """As `duration_ms`, and in whole days also longer: `30d`. Raises a usage VerbError that names `option`."""
    days = _DAYS.match(text)
    if days is None:
        return duration_ms(text, option)
    if int(days[1]) > DAYS_MAX:
        raise usage(f"{option} is at most {DAYS_MAX}d", "give a shorter time")
    return int(days[1]) * 86_400_000


def spoken(ms: float) -> str:
    """The span for a person, with two units at most: `340 ms`, `12 s`, `3 min 5 s`, `2 d 4 h`."""
    if ms < 1_000:
        return f"{max(0, round(ms))} ms"
    seconds = round(ms / 1_000)
    if seconds < 60:
        return f"{seconds} s"
    for size, unit, small_size, small_unit in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            rest = seconds % size // small_size
            return f"{seconds // size} {unit}" + (f" {rest} {small_unit}" if rest else "")
    raise AssertionError(seconds)
