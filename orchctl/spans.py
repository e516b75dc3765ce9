"""Spans of time as people read them. Pure."""


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
