"""Who shows an answer while it grows: as text for a person, as lines of JSON for a program, or not at all."""

import sys
from typing import TYPE_CHECKING

from msgspec import Raw, Struct

from orchctl.progress import WaitingLine
from orchctl.render import json_line, print_document
from orchctl.terminal import Screen
from supervisor.wire.frames import Started

if TYPE_CHECKING:
    from supervisor.client.frames import Frame


class EventLine(Struct, kw_only=True):
    """One line of `--events`. `data` is the event's own JSON."""

    id: str
    event: str
    data: Raw


class Silent:
    """Shows nothing: the whole answer is printed at its end."""

    def on_frame(self, frame: "Frame") -> None:
        """Nothing."""

    def on_started(self, started: Started) -> None:
        """Nothing."""

    def on_token(self, text: str) -> None:
        """Nothing."""


class EventPrinter(Silent):
    """Every event as one line of JSON, at once."""

    def __init__(self, line: WaitingLine) -> None:
        self._line = line

    def on_frame(self, frame: "Frame") -> None:
        """Print it."""
        self._line.clear()
        print_document(json_line(EventLine(id=str(frame.seq), event=frame.name, data=Raw(frame.data))))


class TextPrinter(Silent):
    """The text itself, each token as it comes; a terminal gets nothing that it would obey."""

    def __init__(self, screen: Screen, line: WaitingLine) -> None:
        self._screen = screen
        self._line = line

    def on_token(self, text: str) -> None:
        """Print it, exactly where standard output is not a terminal."""
        self._line.clear()
        sys.stdout.write(self._screen.clean(text))
        sys.stdout.flush()
