"""Spans of time as people write them: `30s`, `1m30s`, `500ms`. How they read them: spans.py. Pure."""

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
