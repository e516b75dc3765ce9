"""What is at the end of a stream: a terminal or not, colour or not, how wide, which characters.

Decides how text is adapted to it, and makes text that strangers wrote harmless. Knows nothing of pools or tasks.
"""

import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TextIO

WIDTH_PIPED = 200
"""Columns where nobody is looking: wide enough that nothing is cut for the eye of a program."""

_COERCED_CTYPE = ("C.UTF-8", "C.utf8", "UTF-8")
"""PEP 538: the interpreter puts one of these into LC_CTYPE when the locale is C; nobody asked for UTF-8 then."""

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Style(StrEnum):
    """SGR sequences by what they are for."""

    BOLD = "\x1b[1m"
    DIM = "\x1b[2m"
    GOOD = "\x1b[32m"
    WARN = "\x1b[33m"
    BAD = "\x1b[31m"


@dataclass(frozen=True, slots=True)
class Signs:
    """The few signs that are not letters, in one of two alphabets."""

    on: str
    off: str
    passed: str
    failed: str
    running: str
    pending: str
    dot: str
    more: str
    hook: str
    spinner: str


UNICODE = Signs("●", "○", "✓", "✗", "…", "·", "·", "…", "└", "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
ASCII = Signs("*", "o", "+", "x", ".", "-", "|", "~", "`-", "|/-\\")


@dataclass(frozen=True, slots=True)
class Screen:
    """The end of one stream. `has_cursor` is true where a line may be written over again."""

    is_terminal: bool
    has_colour: bool
    has_cursor: bool
    width: int
    height: int
    signs: Signs

    def paint(self, text: str, *styles: Style) -> str:
        """The text in these styles where colour is welcome, as it is elsewhere."""
        return f"{''.join(styles)}{text}\x1b[0m" if self.has_colour and styles else text

    def clean(self, text: str) -> str:
        """The text of a stranger, harmless where a terminal would obey it, untouched elsewhere."""
        return printable(text) if self.is_terminal else text


def screen_of(stream: TextIO, environ: Mapping[str, str]) -> Screen:
    """Looks at the stream and at NO_COLOR (no-color.org), TERM and the locale."""
    is_terminal = stream.isatty()
    has_cursor = is_terminal and environ.get("TERM", "dumb") != "dumb"
    size = shutil.get_terminal_size((80, 24))
    return Screen(
        is_terminal=is_terminal,
        has_colour=has_cursor and not environ.get("NO_COLOR"),
        has_cursor=has_cursor,
        width=max(1, size.columns) if is_terminal else WIDTH_PIPED,
        height=max(1, size.lines),
        signs=UNICODE if _speaks_unicode(stream, environ) else ASCII,
    )


def out_screen() -> Screen:
    """The screen of standard output."""
    return screen_of(sys.stdout, os.environ)


def err_screen() -> Screen:
    """The screen of standard error."""
    return screen_of(sys.stderr, os.environ)


def printable(text: str) -> str:
    """The text without what moves a cursor, sets a title, colours or turns the writing direction round.

    C0 and C1 controls become `^[`-like pairs or `<9b>`, line feeds and tabs stay, carriage returns go.
    """
    return _CONTROLS.sub(_visible, text)


def one_line(text: str) -> str:
    """The text on a single line, harmless anywhere."""
    return printable(" ".join(text.split()))


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code == 0x0D:
        return ""
    if code < 0x20 or code == 0x7F:
        return "^" + chr(code ^ 0x40)
    return f"<{code:02x}>"


def _speaks_unicode(stream: TextIO, environ: Mapping[str, str]) -> bool:
    if "utf" not in (stream.encoding or "").lower():
        return False
    ctype = environ.get("LC_CTYPE", "")
    asked = environ.get("LC_ALL") or ("" if ctype in _COERCED_CTYPE else ctype) or environ.get("LANG", "")
    return "utf" in asked.lower()
