"""A free port on the loopback interface for the next engine.

The port is free when this returns and may be taken before the engine binds it: an engine that then says "in use" is
started again on another one. Nothing is reserved, because engines bind for themselves.
"""

import socket
from collections.abc import Collection

HOST = "127.0.0.1"
TRIES_MAX = 32


def pick_port(*, avoid: Collection[int] = ()) -> int:
    """A port of the kernel's choice that nobody listens on and that is not in `avoid` (ports given out just now).

    Raises:
        OSError: there is none.
    """
    for _ in range(TRIES_MAX):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            probe.bind((HOST, 0))
            port = int(probe.getsockname()[1])
        if port not in avoid:
            return port
    raise OSError(f"no free port on {HOST} in {TRIES_MAX} tries")
