"""The files that make a service of orchctl: where their text comes from, where they go, what is filled in.

Pure but for reading the texts that are shipped with the program. Knows nothing of what is on the host.
"""

import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath

SERVICE = "orchctl.service"
SOCKETS = ("orchctl.socket", "orchctl-control.socket")
UNITS = (SERVICE, *SOCKETS)
UNIT_DIR = PurePosixPath("/etc/systemd/system")
CREDENTIALS = UNIT_DIR / f"{SERVICE}.d" / "credentials.conf"
USER = "orchctl"
CONFIG = PurePosixPath("/etc/orchctl/pools.yaml")
CONTROL_SOCKET = PurePosixPath("/run/orchctl/control.sock")
KEYS = PurePosixPath("/etc/orchctl/keys.json")
STOP_SLACK_S = 60
"""How long the end of engines may take after the last task, within TimeoutStopSec=."""
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9/._+@:,=-]*")
_USER_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,30}")


class UnfitError(Exception):
    """A word cannot stand in a unit file. One sentence without a full stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What the files are filled with. `listen` is an address as ListenStream= has it, `stop_s` is TimeoutStopSec=."""

    program: PurePosixPath
    config: PurePosixPath = CONFIG
    user: str = USER
    listen: str = "127.0.0.1:8090"
    control_socket: PurePosixPath = CONTROL_SOCKET
    stop_s: int = 90
    has_credentials: bool = False


def draw_files(setting: Setting) -> dict[PurePosixPath, str]:
    """The place and the text of every file. Raises UnfitError."""
    _check(setting)
    user = setting.user
    service = _filled(
        _shipped(SERVICE),
        (
            ("ExecStart=", f"ExecStart={setting.program} serve --config {setting.config}"),
            ("User=", f"User={user}"),
            ("Group=", f"Group={user}"),
            ("TimeoutStopSec=", f"TimeoutStopSec={setting.stop_s}"),
        ),
    )
    http = _filled(_shipped(SOCKETS[0]), (("ListenStream=", f"ListenStream={setting.listen}"),))
    control = _filled(
        _shipped(SOCKETS[1]),
        (
            ("ListenStream=", f"ListenStream={setting.control_socket}"),
            ("SocketUser=", f"SocketUser={user}"),
            ("SocketGroup=", f"SocketGroup={user}"),
        ),
    )
    sysusers = _filled(_shipped("orchctl.sysusers"), (("u ", _shipped_user(user)),))
    tmpfiles = _shipped("orchctl.tmpfiles").replace("0750 orchctl orchctl", f"0750 {user} {user}")
    files = {
        PurePosixPath("/etc/sysusers.d/orchctl.conf"): sysusers,
        PurePosixPath("/etc/tmpfiles.d/orchctl.conf"): tmpfiles.replace("root orchctl", f"root {user}"),
        UNIT_DIR / SERVICE: service,
        UNIT_DIR / SOCKETS[0]: http,
        UNIT_DIR / SOCKETS[1]: control,
    }
    if setting.has_credentials:
        files[CREDENTIALS] = _shipped("orchctl-credentials.conf")
    return files


def _shipped_user(user: str) -> str:
    return f'u {user} - "orchctl daemon and LLM engines" /var/lib/orchctl /usr/sbin/nologin'


def _check(setting: Setting) -> None:
    """A space or a percent sign would mean something else to systemd."""
    for path in (setting.program, setting.config, setting.control_socket):
        if not _PLAIN_PATH.fullmatch(str(path)):
            raise UnfitError(
                f"{path} cannot stand in a unit file: it is not absolute, or has other than plain characters"
            )
    if not _USER_NAME.fullmatch(setting.user):
        raise UnfitError(f"{setting.user!r} is not the name of a system user")


def _filled(text: str, lines: tuple[tuple[str, str], ...]) -> str:
    """The text with the one line that begins with each of these words replaced."""
    for begins, line in lines:
        text, count = re.subn(rf"(?m)^{re.escape(begins)}.*$", lambda _, line=line: line, text)  # type: ignore[misc]
        assert count == 1, f"{begins} stands {count} times in a shipped file"
    return text


def _shipped(name: str) -> str:
    """The text of a file of the folder `systemd`: inside the installed package, else beside it in a work tree."""
    packaged = resources.files("orchctl") / "systemd" / name
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parent.parent / "systemd" / name).read_text(encoding="utf-8")
