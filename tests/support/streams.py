"""An independent reader of a task's stream: parses SSE by itself and checks what every stream must keep."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """One SSE event; `seq` is its id line."""

    seq: int
    name: str
    data: dict[str, Any]


def parse_events(lines: Iterable[bytes]) -> Iterator[Event]:
    """Events out of the lines of a response, as they come. Only LF ends a line; comments are passed over."""
    fields: dict[str, str] = {}
    for raw in lines:
        line = raw.rstrip(b"\n").decode()
        if not line:
            if fields:
                yield Event(int(fields["id"]), fields["event"], json.loads(fields["data"]))
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            assert name in {"id", "event", "data"}, line
            assert name not in fields, "one data line per event"
            fields[name] = value


@dataclass(frozen=True)
class Stream:
    """A complete stream."""

    events: list[Event]

    @property
    def names(self) -> list[str]:
        """Without the transient metrics."""
        return [event.name for event in self.events if event.name != "metrics"]

    @property
    def text(self) -> str:
        """All token text."""
        return "".join(event.data["t"] for event in self.events if event.name == "token")

    @property
    def end(self) -> Event:
        """The terminal event."""
        return self.events[-1]

    def check(self, *, after: int = 0) -> "Stream":
        """What the API promises of a stream: numbers and tokens without a gap, one terminal event, last."""
        lasting = [event for event in self.events if event.name != "metrics"]
        assert [event.seq for event in lasting] == list(range(after + 1, after + 1 + len(lasting)))
        tokens = [event.data["i"] for event in lasting if event.name == "token"]
        first = max(after - 1, 0)
        assert tokens == list(range(first, first + len(tokens)))
        assert [event.name for event in lasting if event.name in {"end", "error"}] == [lasting[-1].name]
        assert self.names.count("started") <= 1
        return self
