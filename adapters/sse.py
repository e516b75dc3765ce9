"""Server-sent events, sans I/O: bytes in, the payloads of complete events out (WHATWG HTML, 9.2.6).

Decides only where an event ends and what its data is. It knows no engine and decodes no JSON. Lines end with LF or
CRLF; a lone CR, which no engine sends, is data. Never uses `splitlines()`: U+2028 inside JSON is text, not the end of
a line.
"""

EVENT_BYTES_MAX = 1024 * 1024
"""Bound of one event, in bytes; what the longest allowed prompt echoed back in a last event fits into."""


class SseSplitter:
    """Cuts a byte stream into events, the same ones however the stream was cut into reads.

    Comments and the fields event, id and retry are dropped; several data lines are joined by LF. After an event
    longer than `event_bytes_max` bytes `is_overflown` is true and nothing more is given.
    """

    __slots__ = ("_event_bytes_max", "_held", "_held_bytes", "_is_cr_held", "is_overflown")

    def __init__(self, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._is_cr_held = False
        self.is_overflown = False

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """The data of every event that these bytes complete, in order."""
        data = bytes(data)
        if self.is_overflown:
            return []
        if self._is_cr_held or b"\r" in data:
            data = self._without_cr(data)
        if self._held:
            self._held.append(data)
            self._held_bytes += len(data)
            if b"\n" not in data and self._held_bytes <= self._event_bytes_max:
                return []  # Cannot complete an event; joining each time would be quadratic in the event's length.
            data = b"".join(self._held)
        return self._cut(data)

    def _without_cr(self, data: bytes) -> bytes:
        """CRLF as LF. A CR at the end of a read is held back until it is known what follows it."""
        if self._is_cr_held:
            data = b"\r" + data
        self._is_cr_held = data.endswith(b"\r")
        return (data[:-1] if self._is_cr_held else data).replace(b"\r\n", b"\n")

    def _cut(self, data: bytes) -> list[bytes]:
        """Split at the blank lines and hold back what stands after the last one."""
        if data.endswith(b"\n\n"):  # The usual read: whole events and nothing else.
            blocks = data.split(b"\n\n")
            self._held, self._held_bytes = [], 0
            return self._payloads(blocks)
        end = data.rfind(b"\n\n")
        rest = data[end + 2 :] if end >= 0 else data
        rest = rest.lstrip(b"\n")
        self._held, self._held_bytes = ([rest] if rest else []), len(rest)
        payloads = self._payloads(data[:end].split(b"\n\n")) if end >= 0 else []
        if len(rest.rstrip(b"\n")) > self._event_bytes_max:
            self._overflow()
        return payloads

    def _payloads(self, blocks: list[bytes]) -> list[bytes]:
        payloads: list[bytes] = []
        event_bytes_max = self._event_bytes_max
        for block in blocks:
            if len(block) > event_bytes_max and len(block.strip(b"\n")) > event_bytes_max:
                self._overflow()
                break
            if block.startswith(b"data: ") and b"\n" not in block:
                payloads.append(block[6:])
            elif (payload := _data_of(block)) is not None:
                payloads.append(payload)
        return payloads

    def _overflow(self) -> None:
        self.is_overflown = True
        self._held, self._held_bytes = [], 0


def _data_of(block: bytes) -> bytes | None:
    """The data lines of one event, joined by LF; None where it has none (a comment, a blank line)."""
    lines = [_after_colon(line) for line in block.split(b"\n") if line == b"data" or line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def _after_colon(line: bytes) -> bytes:
    value = line[5:]
    return value[1:] if value.startswith(b" ") else value
