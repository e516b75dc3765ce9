"""Who asks, and what may they? The one place where a request becomes a caller and where a right is missed.

1. On the control socket the kernel names the peer: root, the daemon's own user and the members of the socket's group
   are operators, with every right.
2. Over TCP, while there is no API key at all, everybody is the one tenant there is, without the control plane. The
   daemon then listens on the loopback only.
3. Over TCP with keys, a request carries exactly one: `Authorization: Bearer ok_...` or `X-Api-Key: ok_...`.
"""

import os
import re
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from multidict import CIMultiDict, CIMultiDictProxy, istr

from supervisor.config.keys import PREFIX
from supervisor.core.refusals import Refused
from supervisor.http.auth_failures import AuthFailures
from supervisor.http.service import Caller
from supervisor.runtime.audit import Audit
from supervisor.runtime.key_ring import KeyFault, KeyRejected, KeyRing
from supervisor.wire.codes import Code, Priority, Reason, Scope

TENANT = "default"
SO_PEERGROUPS = 59  # Linux 4.13; the socket module has no name for it
RETRY_MS = 1000
AUTHORIZATION = istr("Authorization")
X_API_KEY = istr("X-Api-Key")
_PEER_GROUPS_MAX = 65_536
_UCRED = struct.Struct("iII")
_KEY = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")
_BEARER = re.compile(rf"[Bb][Ee][Aa][Rr][Ee][Rr] +({_KEY.pattern})")

Headers = CIMultiDict[str] | CIMultiDictProxy[str]

ANYBODY = Caller(TENANT, scopes=frozenset({Scope.DATA, Scope.METRICS}))
_STRANGER = Refused(
    code=Code.INVALID_PARAMS, reason=Reason.SCOPE, message="This user may not use the control socket of the daemon."
)
_NO_KEY = Refused(
    code=Code.INVALID_PARAMS,
    reason=Reason.AUTH,
    message="An API key is needed, once, as `Authorization: Bearer ok_...` or `X-Api-Key: ok_...`.",
)
_BAD_KEY = Refused(code=Code.INVALID_PARAMS, reason=Reason.AUTH, message="The API key is not valid.")
_TOO_MANY = Refused(
    code=Code.ADMISSION_REJECT,
    reason=Reason.RATE_LIMIT,
    message="Too many requests from this address had no valid API key.",
    retry_after_ms=RETRY_MS,
)


class SocketOption(Protocol):
    """The part of a socket that names its peer."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes:
        """As `socket.getsockopt`."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end of the control socket, as it was when it connected (SO_PEERCRED)."""

    uid: int
    gids: frozenset[int]
    pid: int | None = None


def peer_of(sock: SocketOption) -> Peer:
    """Credentials as the kernel keeps them; a process cannot claim another's. Raises OSError where there are none."""
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * _PEER_GROUPS_MAX)
    except OSError:
        raw = b""
    return Peer(uid, frozenset((gid, *(int(group) for (group,) in struct.iter_unpack("I", raw)))), pid)


def identify_peer(peer: Peer | None, socket_gid: int) -> Caller | Refused:
    """The caller of a request on the control socket, whose group is `socket_gid`."""
    if peer is not None and (peer.uid in {0, os.geteuid()} or socket_gid in peer.gids):
        return Caller(TENANT, is_operator=True, client_id=f"uid:{peer.uid}", pid=peer.pid)
    return _STRANGER


class Gate:
    """What all listeners of a daemon share. `keys` None is a daemon that can have no keys."""

    def __init__(self, keys: KeyRing | None, audit: Audit, now_s: Callable[[], float] = time.monotonic) -> None:
        self.audit = audit
        self._keys = keys
        self._now_s = now_s
        self._failures = AuthFailures()
        self._denials = AuthFailures()

    @property
    def needs_key(self) -> bool:
        """Whether a request over TCP must carry a key."""
        return self._keys is not None and self._keys.needs_key

    def identify(self, headers: Headers, address: str) -> Caller | Refused:
        """The caller of a request over TCP, from its headers alone; `address` is the peer's."""
        if self._keys is None or not self._keys.needs_key:
            return ANYBODY
        secret = presented_key(headers)
        found = KeyRejected(secret) if isinstance(secret, KeyFault) else self._keys.find(secret)
        return found if isinstance(found, Caller) else self._turn_away(found, address)

    def note_denied(self, caller: Caller, address: str, action: str, correlation_id: str) -> None:
        """A known caller was refused. Each may cause as many lines of the log as a stranger may."""
        if self._denials.is_over(caller.client_id or address, self._now_s()):
            self.audit.note_denied_again()
        else:
            self.audit.note_denied(caller, address, action, correlation_id)

    def _turn_away(self, rejected: KeyRejected, address: str) -> Refused:
        if self._failures.is_over(address, self._now_s()):
            self.audit.note_throttled()
            return _TOO_MANY
        self.audit.note_rejected(rejected, address)
        return _NO_KEY if rejected.fault in {KeyFault.MISSING, KeyFault.MALFORMED} else _BAD_KEY


def presented_key(headers: Headers) -> str | KeyFault:
    """The one key that a request carries. Two of them, even equal ones, are none: proxies disagree on which counts."""
    bearer, plain = headers.getall(AUTHORIZATION, []), headers.getall(X_API_KEY, [])
    if not bearer and not plain:
        return KeyFault.MISSING
    if len(bearer) + len(plain) > 1:
        return KeyFault.MALFORMED
    if plain:
        return plain[0] if _KEY.fullmatch(plain[0]) else KeyFault.MALFORMED
    found = _BEARER.fullmatch(bearer[0])
    return found[1] if found is not None else KeyFault.MALFORMED


def lacks_scope(caller: Caller, scopes: frozenset[Scope]) -> Refused | None:
    """403 where the caller has none of the scopes that a route asks for."""
    if not caller.scopes.isdisjoint(scopes):
        return None
    if caller is ANYBODY:
        message = "Without an API key this is to be had on the control socket only."
    else:
        message = f"This API key lacks the scope {' or '.join(sorted(scopes))}."
    return Refused(code=Code.INVALID_PARAMS, reason=Reason.SCOPE, message=message)


def lacks_priority(caller: Caller, priority: Priority) -> Refused | None:
    """403 where the caller's key is not for this class of tasks."""
    if priority in caller.priorities:
        return None
    message = f"This API key may not submit {priority} tasks."
    return Refused(code=Code.INVALID_PARAMS, reason=Reason.SCOPE, message=message)
