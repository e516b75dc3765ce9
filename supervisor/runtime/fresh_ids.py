"""Random UUIDs (RFC 9562, version 4), for less than a system call each: entropy is drawn for many at a time."""

import os

_BYTES = 16
_AT_ONCE = 256


class FreshIds:
    """Ids of one process. Not for use by several threads; a fork would repeat them."""

    def __init__(self) -> None:
        self._hex = ""
        self._next = 0

    def take(self) -> str:
        """A new one, as 36 lower-case characters."""
        if self._next == len(self._hex):
            self._hex, self._next = os.urandom(_BYTES * _AT_ONCE).hex(), 0
        text = self._hex[self._next : self._next + 2 * _BYTES]
        self._next += 2 * _BYTES
        variant = "89ab"[int(text[16], 16) & 3]
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"


_ids = FreshIds()
fresh_id = _ids.take
