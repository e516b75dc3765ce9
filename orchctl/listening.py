"""Who shows an answer while it grows: as text for a person, as lines of JSON for a program, or not at all."""

import sys

import msgspec
from msgspec import Raw, Struct

from orchctl.progress import WaitingLine
from orchctl.render import json_line, print_document
from orchctl.sse import Event
from orchctl.terminal import Screen
from supervisor.wire.frames import Started


class EventLine(Struct, kw_only=True):
    """One line of `--events`. `data` is the event's own JSON."""

    id: str | None
    event: str
    data: Raw


class Silent:
    """Shows nothing: the whole answer is printed at its end."""

    def on_event(self, event: Event) -> None:
        """Nothing."""

    def on_started(self, started: Started) -> None:
        """Nothing."""

    def on_token(self, text: str) -> None:
        """Nothing."""


class EventPrinter(Silent):
    """Every event as one line of JSON, at once."""

    def __init__(self, line: WaitingLine) -> None:
        self._line = line

    def on_event(self, event: Event) -> None:
        """Print it. Raises msgspec.DecodeError for data that is no JSON."""
        msgspec.json.decode(event.data)
        self._line.clear()
        print_document(json_line(EventLine(id=event.id, event=event.name, data=Raw(event.data))))


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
