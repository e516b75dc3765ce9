"""Reads a task's stream: server-sent events out of bytes, in any pieces. Sans-I/O; it opens and waits for nothing.

Follows the WHATWG HTML standard, section 9.2.6, for what the daemon sends: comments, `id`, `event` and `data` fields,
lines ended by LF or CRLF. A frame that is not complete at the end of the body is not an event.
"""

from dataclasses import dataclass

FRAME_BYTES_MAX = 64 * 2**20


class FrameTooLongError(Exception):
    """More than `FRAME_BYTES_MAX` bytes without the end of a frame: this is no stream of ours."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `id` is None where the frame had none; `data` is the JSON text."""

    id: str | None
    name: str
    data: bytes


class EventParser:
    """Bytes in, events out; the pieces make no difference."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._lines: list[bytes] = []

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete. Raises FrameTooLongError."""
        self._rest += data
        # A frame of many MiB comes in thousands of pieces: only those that end a line are worth a look at the whole.
        *lines, rest = self._rest.split(b"\n") if b"\n" in data else (self._rest,)
        self._rest = rest
        events: list[Event] = []
        for line in lines:
            stripped = line.removesuffix(b"\r")
            if stripped:
                self._lines.append(bytes(stripped))
                continue
            event = _event(self._lines)
            self._lines.clear()
            if event is not None:
                events.append(event)
        if len(self._rest) + sum(map(len, self._lines)) > FRAME_BYTES_MAX:
            raise FrameTooLongError
        return events


def _event(lines: list[bytes]) -> Event | None:
    """The event of one frame, None for comments and for a frame without data."""
    event_id: str | None = None
    name = "message"
    data: list[bytes] = []
    for line in lines:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode(errors="replace")
        elif field == b"id" and b"\0" not in value:
            event_id = value.decode(errors="replace")
    return Event(event_id, name, b"\n".join(data)) if data else None
