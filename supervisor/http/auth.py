"""Who asks? The one place where a request becomes a caller.

Over TCP everybody is the one tenant there is; API keys will be looked up here and nowhere else. On the control socket
the kernel names the peer: root, the daemon's own user and the members of the socket's group are operators.
"""

import os
import socket
import struct
from dataclasses import dataclass
from typing import Protocol

from supervisor.core.refusals import Refused
from supervisor.http.service import Caller
from supervisor.wire.codes import Code, Reason

TENANT = "default"
SO_PEERGROUPS = 59  # Linux 4.13; the socket module has no name for it
_PEER_GROUPS_MAX = 65_536
_UCRED = struct.Struct("iII")

ANYBODY = Caller(TENANT)
OPERATOR = Caller(TENANT, is_operator=True)
_STRANGER = Refused(
    code=Code.INVALID_PARAMS, reason=Reason.SCOPE, message="This user may not use the control socket of the daemon."
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


def peer_of(sock: SocketOption) -> Peer:
    """Credentials as the kernel keeps them; a process cannot claim another's. Raises OSError where there are none."""
    _, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * _PEER_GROUPS_MAX)
    except OSError:
        raw = b""
    return Peer(uid, frozenset((gid, *(int(group) for (group,) in struct.iter_unpack("I", raw)))))


def identify(peer: Peer | None, socket_gid: int | None) -> Caller | Refused:
    """The caller of a request. `socket_gid` is the group of the control socket, None on TCP."""
    if socket_gid is None:
        return ANYBODY
    if peer is not None and (peer.uid in {0, os.geteuid()} or socket_gid in peer.gids):
        return OPERATOR
    return _STRANGER
