"""Where orchctl keeps its things when the config does not say. Standard library only, so that the CLI starts fast.

This is the only place of the config that looks at the environment, and only at the mapping it is given.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT_EUID = 0


@dataclass(frozen=True, slots=True)
class Defaults:
    """Absolute paths for the keys `state_dir` and `listen.socket` where a config leaves them out."""

    state_dir: Path
    socket: Path


def defaults_from_environ(environ: Mapping[str, str], euid: int) -> Defaults:
    """The default places of this user: system folders for root, else the XDG ones.

    1. root: /var/lib/orchctl and /run/orchctl/control.sock, whatever the environment says.
    2. others: $XDG_STATE_HOME/orchctl or ~/.local/state/orchctl, and the socket below $XDG_RUNTIME_DIR.
    3. without a usable $XDG_RUNTIME_DIR the socket lies in the state folder, which only this user can enter.
    """
    if euid == ROOT_EUID:
        return Defaults(state_dir=Path("/var/lib/orchctl"), socket=Path("/run/orchctl/control.sock"))
    home = _absolute(environ, "HOME") or Path("/nonexistent")
    state_home = _absolute(environ, "XDG_STATE_HOME") or home / ".local" / "state"
    state_dir = state_home / "orchctl"
    runtime_dir = _absolute(environ, "XDG_RUNTIME_DIR")
    socket_dir = runtime_dir / "orchctl" if runtime_dir is not None else state_dir
    return Defaults(state_dir=state_dir, socket=socket_dir / "control.sock")


def default_socket(environ: Mapping[str, str], euid: int) -> Path:
    """The control socket that `orchctl` tries when it is told no other."""
    return defaults_from_environ(environ, euid).socket


def _absolute(environ: Mapping[str, str], name: str) -> Path | None:
    """The folder in a variable. The XDG specification wants relative values ignored."""
    value = environ.get(name, "")
    return Path(value) if value.startswith("/") else None
