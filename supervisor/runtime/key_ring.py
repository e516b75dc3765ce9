"""The API keys in force: looked up by digest for every request, taken up anew when their file changes.

Decides whether a key opens the door, not what lies behind it. A key itself is never kept. Once there were keys, this
daemon asks for one until it ends: no edit of the file can open it to everybody.
"""

import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from pathlib import Path

from supervisor.config.keys import ApiKey, KeyFile, KeysError, digest_of, read_keys
from supervisor.runtime.caller import Caller

FINGERPRINT_CHARS = 6


class KeyFault(StrEnum):
    """Why a request's key was not taken. All look the same to the caller."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class KeyRejected:
    """A key that opens nothing. `fingerprint` is the start of its digest; `key_id` is empty for one nobody knows."""

    fault: KeyFault
    fingerprint: str = ""
    key_id: str = ""


@dataclass(frozen=True, slots=True)
class _Entry:
    """`until_s` is a time of the wall clock; what is over stays, so that the log can say which key it was."""

    digest: bytes
    until_s: float
    caller: Caller
    fault: KeyFault


_NOBODY = _Entry(bytes(32), 0.0, Caller("", client_id=""), KeyFault.UNKNOWN)


class KeyRing:
    """The keys of one file. `take_up` may run in a thread: what `find` uses is replaced in one step."""

    def __init__(self, path: Path, environ: Mapping[str, str], now_s: Callable[[], float] = time.time) -> None:
        self.path = path
        self.needs_key = False
        self._environ = environ
        self._now_s = now_s
        self._entries: dict[bytes, _Entry] = {}

    def take_up(self) -> int:
        """Read the file; gives the number of its keys. Raises KeysError, and all stays as it was.

        No file means no keys, unless there were some.
        """
        try:
            file = read_keys(self.path, self._environ)
        except FileNotFoundError:
            if self.needs_key:
                raise KeysError(f"{self.path} is gone") from None
            file = KeyFile()
        self._entries = {entry.digest: entry for entry in map(_entry_of, file.keys)}
        self.needs_key = self.needs_key or bool(file.keys)
        return len(file.keys)

    def find(self, secret: str) -> Caller | KeyRejected:
        """The caller whom a key stands for. Takes the same time for a key that is nearly right and one that is not.

        The table is asked for a digest, which nobody can steer, and the digests are then compared in constant time.
        """
        digest = digest_of(secret)
        entry = self._entries.get(digest, _NOBODY)
        is_same = hmac.compare_digest(entry.digest, digest)
        is_alive = self._now_s() < entry.until_s  # looked up in any case, so that no refusal is quicker than another
        if is_same and is_alive:
            return entry.caller
        return KeyRejected(entry.fault, digest.hex()[:FINGERPRINT_CHARS], entry.caller.client_id)


def _entry_of(key: ApiKey) -> _Entry:
    caller = Caller(key.tenant, client_id=key.id, scopes=frozenset(key.scopes), priorities=frozenset(key.priorities))
    if key.revoked is not None:
        return _Entry(bytes.fromhex(key.sha256), 0.0, caller, KeyFault.REVOKED)
    until_s = inf if key.expires is None else key.expires.timestamp()
    return _Entry(bytes.fromhex(key.sha256), until_s, caller, KeyFault.EXPIRED)
