"""Where the daemon's control socket is. Decides which path is asked; opens nothing."""

import os
from collections.abc import Mapping
from pathlib import Path

from supervisor.config.paths import default_socket

SYSTEM_SOCKET = Path("/run/orchctl/control.sock")


def find_socket(given: Path | None, environ: Mapping[str, str], euid: int) -> Path:
    """The socket to ask.

    1. what the caller gave; 2. this user's own, where there is one; 3. the system's, where there is one; 4. the user's
    own, to be named in the error.
    """
    if given is not None:
        return given
    own = default_socket(environ, euid)
    return SYSTEM_SOCKET if not os.path.lexists(own) and os.path.lexists(SYSTEM_SOCKET) else own
