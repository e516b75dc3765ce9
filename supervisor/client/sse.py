"""Server-sent events out of bytes, in any pieces. Sans-I/O: it opens nothing, waits for nothing and knows no task.

Follows the WHATWG HTML standard, section 9.2.6: comments, `id`, `event` and `data` fields, lines that LF, CR or CRLF
end, a byte order mark before the first one. A frame that is not complete at the end of the body is not an event.
"""

from dataclasses import dataclass

FRAME_BYTES_MAX = 64 * 2**20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class FrameTooLongError(Exception):
    """More than `FRAME_BYTES_MAX` bytes without the end of a frame: this is no stream of ours."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `id` is None where the frame had none; `data` is the JSON text."""

    id: str | None
    name: str
    data: bytes


class EventParser:
    """Bytes in, events out; the pieces make no difference. One parser reads one body."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._lines: list[bytes] = []
        self._lines_bytes = 0
        self._is_after_cr = False
        self._is_at_start = True

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete. Raises FrameTooLongError."""
        events: list[Event] = []
        for line in self._whole_lines(data):
            if line:
                self._lines.append(line)
                self._lines_bytes += len(line)
                continue
            event = _event(self._lines)
            self._lines.clear()
            self._lines_bytes = 0
            if event is not None:
                events.append(event)
        if len(self._rest) + self._lines_bytes > FRAME_BYTES_MAX:
            raise FrameTooLongError
        return events

    def _whole_lines(self, data: bytes) -> list[bytes]:
        """The lines that end in these bytes, without their ends; what is left over waits for the next ones."""
        if not data:
            return []
        if self._is_after_cr:
            data = data.removeprefix(b"\n")  # the second half of a CRLF, whose CR has ended the line already
        self._is_after_cr = data.endswith(b"\r")
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self._rest += data
        # A frame of many MiB comes in thousands of pieces: only those that end a line are worth a look at the whole.
        if b"\n" not in data:
            return []
        *lines, self._rest = self._rest.split(b"\n")
        if self._is_at_start:
            self._is_at_start = False
            lines[0] = lines[0].removeprefix(_BYTE_ORDER_MARK)
        return [bytes(line) for line in lines]


def _event(lines: list[bytes]) -> Event | None:
    """The event of one frame, None for comments and for a frame without data."""
    event_id: str | None = None
    name = ""
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
    return Event(event_id, name or "message", b"\n".join(data)) if data else None
