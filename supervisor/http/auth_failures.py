"""How many failed attempts a peer may make before it is told to wait. Pure: time is an argument.

Only failures count and only failures are held up: whoever has a key is let in also from a busy address,
such as that of a proxy.
"""

import ipaddress
from collections import OrderedDict

PER_S = 50.0
BURST = 50.0
PEERS_MAX = 4096
_NETWORK_BITS = 64
"""Of an IPv6 address: the rest is the peer's own to choose."""


class AuthFailures:
    """A bucket of attempts for each peer; the peer that failed longest ago makes room for a new one."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def is_over(self, address: str, now_s: float) -> bool:
        """Count one failure; whether the peer now has more than 50 a second."""
        peer = _peer_of(address)
        left, at_s = self._buckets.pop(peer, (BURST, now_s))
        left = min(BURST, left + (now_s - at_s) * PER_S)
        is_over = left < 1
        self._buckets[peer] = (left if is_over else left - 1, now_s)
        if len(self._buckets) > PEERS_MAX:
            self._buckets.popitem(last=False)
        return is_over


def _peer_of(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:
        return str(found)
    return str(ipaddress.ip_network((int(found), _NETWORK_BITS), strict=False))
