"""What is wrong with a config, and exactly where. Text and positions only; this module reads and decides nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PROBLEMS_SHOWN_MAX = 50

Loc = tuple[str | int, ...]
"""A place in a document: mapping keys and list indices from the root."""


@dataclass(frozen=True, slots=True)
class Place:
    """A position in the text, counted from 1. Line 0 stands for the file as a whole."""

    line: int
    column: int


WHOLE_FILE = Place(0, 0)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to fix. `pointer` is a JSON pointer (RFC 6901), empty for the whole document."""

    file: str
    line: int
    column: int
    pointer: str
    message: str

    def __str__(self) -> str:
        position = f":{self.line}:{self.column}" if self.line else ""
        pointer = f" {self.pointer}:" if self.pointer else ""
        return _printable(f"{self.file}{position}:{pointer} {self.message}")


class ConfigError(Exception):
    """The config cannot be used. `problems` is never empty; the text has one line for each, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.problems[:PROBLEMS_SHOWN_MAX]]
        hidden = len(self.problems) - len(lines)
        return "\n".join([*lines, f"... and {hidden} more problems"] if hidden else lines)


def is_denied(error: ConfigError) -> bool:
    """Whether this user may not read the file: nothing is known of what is in it."""
    return isinstance(error.__cause__, PermissionError)


def pointer_of(loc: Iterable[str | int]) -> str:
    """The JSON pointer of a place, `~` and `/` in keys escaped as RFC 6901 section 3 wants it."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in loc)


def _printable(line: str) -> str:
    """Keys and values of a stranger's file must not steer the terminal that shows them."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in line)
