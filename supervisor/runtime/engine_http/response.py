"""One HTTP/1.1 response, bytes in and body bytes out, without I/O (RFC 9112).

Strict on purpose: engines are local programs whose answers are known, so what is ambiguous (two lengths, a bare LF, a
folded line, a coding nobody asked for, an interim response) is a fault and never a guess. A fault is a value; the body
before it is still handed out, so that the result does not depend on how the bytes were cut.
"""

import re
from collections.abc import Callable
from types import MappingProxyType

from supervisor.runtime.engine_http.errors import ProtocolFaultError

HEAD_BYTES_MAX = 16_384
TRAILER_BYTES_MAX = 16_384
CHUNK_LINE_BYTES_MAX = 8 + 8 + 1 + 256 + 2
"""Size digits, blanks, semicolon, extension, CRLF."""

_PREFIX = b"HTTP/1."
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?\r\n")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)\r\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[\t ]{0,8}(?:;[\t\x20-\x7e\x80-\xff]{0,256})?\r\n")
_LENGTH = re.compile(r"[0-9]{1,15}")
_MORE = -1
_NO_HEADERS: MappingProxyType[str, str] = MappingProxyType({})


class ResponseParser:
    """Feed it what the connection reads. `status` is 0 until the header block is whole; header names are lower case."""

    __slots__ = (
        "_held", "_left", "_step", "fault", "has_surplus", "headers", "is_complete", "is_keep_alive", "is_untouched",
        "status",
    )  # fmt: skip

    def __init__(self) -> None:
        self.status = 0
        self.headers: MappingProxyType[str, str] = _NO_HEADERS
        self.is_complete = False
        self.is_keep_alive = False
        self.is_untouched = True
        """Not one byte of an answer came."""
        self.has_surplus = False
        """Bytes followed the response; the connection can't be trusted with another one."""
        self.fault: ProtocolFaultError | None = None
        self._held = b""
        self._left = 0
        # A plain function, not a bound method: that would be a reference cycle for each request.
        self._step: Callable[[ResponseParser, bytes, int, list[bytes]], int] = ResponseParser._read_head

    def feed(self, data: bytes | memoryview) -> bytes:
        """Take some bytes; gives the body bytes among them. Nothing of `data` is kept by reference."""
        buffer = self._held + data if self._held else bytes(data)
        self._held = b""
        self.is_untouched = False
        size = len(buffer)
        pieces: list[bytes] = []
        at = 0
        while at < size and self.fault is None:
            if self.is_complete:
                self.has_surplus = True
                break
            step = self._step(self, buffer, at, pieces)
            if step < 0:
                self._held = buffer[at:]
                break
            at = step
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def eof(self) -> None:
        """The engine sent FIN. Completes a body that runs until close; anything else stays incomplete: it was cut."""
        if self.fault is None and self._step is ResponseParser._read_until_close:
            self.is_complete = True

    def _fail(self, text: str) -> int:
        self.fault = ProtocolFaultError(text)
        return _MORE

    # Each step reads one element at `at` and gives the place after it, or _MORE where the element is not whole yet.

    def _read_head(self, buffer: bytes, at: int, _pieces: list[bytes]) -> int:
        if not buffer.startswith(_PREFIX[: len(buffer)], at):
            return self._fail("the answer is not HTTP/1")
        end = buffer.find(b"\r\n\r\n", at)
        if end < 0 and len(buffer) < HEAD_BYTES_MAX:
            return _MORE
        if end < 0 or end + 4 > HEAD_BYTES_MAX:
            return self._fail(f"the header block of the answer exceeds {HEAD_BYTES_MAX} bytes")
        line = _STATUS.match(buffer, at)
        if line is None:
            return self._fail("the status line of the answer is malformed")
        fields = self._fields(buffer, line.end(), end + 2)
        if fields is None:
            return _MORE
        self._frame_body(int(line[2]), fields, is_http_1_1=line[1] == b"1")
        return end + 4 if self.fault is None else _MORE

    def _fields(self, buffer: bytes, at: int, end: int) -> dict[str, str] | None:
        fields: dict[str, str] = {}
        while at < end:
            field = _FIELD.match(buffer, at, end)
            if field is None:
                self._fail("a header field of the answer is malformed")
                return None
            name = field[1].decode("ascii").lower()
            value = field[2].decode("latin-1").strip(" \t")
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
            at = field.end()
        return fields

    def _frame_body(self, status: int, fields: dict[str, str], *, is_http_1_1: bool) -> None:
        """Where the body ends (RFC 9112 §6.3). Repeated fields were joined by a comma, which no length matches."""
        length, coding = fields.get("content-length"), fields.get("transfer-encoding")
        if status < 200:
            self._fail("an interim response came that nobody asked for")
        elif length is not None and coding is not None:
            self._fail("the answer has both Content-Length and Transfer-Encoding")
        elif coding is not None and (coding.lower() != "chunked" or not is_http_1_1):
            self._fail("the answer has a transfer coding other than chunked")
        elif length is not None and _LENGTH.fullmatch(length) is None:
            self._fail("the Content-Length of the answer is malformed")
        elif fields.get("content-encoding", "identity").lower() != "identity":
            self._fail("the answer is compressed")
        else:
            self.status, self.headers = status, MappingProxyType(fields)
            options = {option.strip().lower() for option in fields.get("connection", "").split(",")}
            self.is_keep_alive = is_http_1_1 and "close" not in options
            self._choose_body(length, is_chunked=coding is not None)

    def _choose_body(self, length: str | None, *, is_chunked: bool) -> None:
        if self.status in {204, 304}:
            self.is_complete = True
        elif is_chunked:
            self._step = ResponseParser._read_chunk
        elif length is not None:
            self._left = int(length)
            self._step = ResponseParser._read_counted
            self.is_complete = self._left == 0
        else:
            self.is_keep_alive = False
            self._step = ResponseParser._read_until_close

    def _read_counted(self, buffer: bytes, at: int, pieces: list[bytes]) -> int:
        piece = buffer[at : at + self._left]
        pieces.append(piece)
        self._left -= len(piece)
        self.is_complete = self._left == 0
        return at + len(piece)

    def _read_until_close(self, buffer: bytes, at: int, pieces: list[bytes]) -> int:
        pieces.append(buffer[at:])
        return len(buffer)

    def _read_chunk(self, buffer: bytes, at: int, pieces: list[bytes]) -> int:
        """A size line, and the chunk with it where it is whole: what engines send for each token."""
        line = _CHUNK.match(buffer, at)
        if line is None:
            has_line = buffer.find(b"\n", at, at + CHUNK_LINE_BYTES_MAX) >= 0
            if has_line or len(buffer) - at >= CHUNK_LINE_BYTES_MAX:
                return self._fail("a chunk size of the answer is malformed")
            return _MORE
        size, start = int(line[1], 16), line.end()
        if size == 0:
            self._step = ResponseParser._read_trailers
            return start
        stop = start + size
        if buffer.startswith(b"\r\n", stop):
            pieces.append(buffer[start:stop])
            return stop + 2
        self._left = size
        self._step = ResponseParser._read_chunk_rest
        return start

    def _read_chunk_rest(self, buffer: bytes, at: int, pieces: list[bytes]) -> int:
        piece = buffer[at : at + self._left]
        pieces.append(piece)
        self._left -= len(piece)
        if self._left == 0:
            self._step = ResponseParser._read_chunk_end
        return at + len(piece)

    def _read_chunk_end(self, buffer: bytes, at: int, _pieces: list[bytes]) -> int:
        end = buffer[at : at + 2]
        if end == b"\r\n":
            self._step = ResponseParser._read_chunk
            return at + 2
        return _MORE if end == b"\r" else self._fail("a chunk of the answer does not end where its size says")

    def _read_trailers(self, buffer: bytes, at: int, _pieces: list[bytes]) -> int:
        """Checked and thrown away."""
        if buffer.startswith(b"\r\n", at):
            self.is_complete = True
            return at + 2
        end = buffer.find(b"\r\n\r\n", at)
        if end < 0 and len(buffer) - at < TRAILER_BYTES_MAX:
            return _MORE
        if end < 0 or end + 4 - at > TRAILER_BYTES_MAX:
            return self._fail(f"the trailer of the answer exceeds {TRAILER_BYTES_MAX} bytes")
        self.is_complete = self._fields(buffer, at, end + 2) is not None
        return end + 4 if self.is_complete else _MORE
