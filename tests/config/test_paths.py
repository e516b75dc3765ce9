"""Default places follow the user and the XDG specification, and finding them needs nothing but the standard library."""

import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.config.paths import Defaults, default_socket, defaults_from_environ
from supervisor.config.places import Places, plan_places
from tests.config.texts import a_config, config_of

USER_EUID = 1000


@pytest.mark.parametrize(
    ("environ", "euid", "state_dir", "socket"),
    [
        ({}, 0, "/var/lib/orchctl", "/run/orchctl/control.sock"),
        ({"HOME": "/root", "XDG_RUNTIME_DIR": "/run/user/0"}, 0, "/var/lib/orchctl", "/run/orchctl/control.sock"),
        (
            {"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/1000"},
            USER_EUID,
            "/home/u/.local/state/orchctl",
            "/run/user/1000/orchctl/control.sock",
        ),
        ({"HOME": "/home/u", "XDG_STATE_HOME": "/s"}, USER_EUID, "/s/orchctl", "/s/orchctl/control.sock"),
        (
            {"HOME": "/home/u", "XDG_STATE_HOME": "relative", "XDG_RUNTIME_DIR": ""},
            USER_EUID,
            "/home/u/.local/state/orchctl",
            "/home/u/.local/state/orchctl/control.sock",
        ),
    ],
)
def test_the_default_places_of_a_user(environ: dict[str, str], euid: int, state_dir: str, socket: str) -> None:
    defaults = defaults_from_environ(environ, euid)

    assert defaults == Defaults(Path(state_dir), Path(socket))
    assert default_socket(environ, euid) == Path(socket)


def test_places_are_those_of_the_config_before_the_defaults() -> None:
    defaults = Defaults(Path("/d"), Path("/d/s.sock"))

    tail = "state_dir: /c\nlisten: { socket: /c/x.sock }\nauth: { keys_file: /k/k.json }\n"

    assert plan_places(config_of(a_config()), defaults, {}) == Places(
        Path("/d"), Path("/d/logs"), Path("/d/s.sock"), Path("/d/keys.json"), Path("/d/models")
    )
    assert plan_places(config_of(a_config(tail=tail)), defaults, {}) == Places(
        Path("/c"), Path("/c/logs"), Path("/c/x.sock"), Path("/k/k.json"), Path("/c/models")
    )


def test_the_default_socket_costs_no_import_of_pydantic_or_yaml() -> None:
    code = "import sys, supervisor.config.paths; print({'pydantic', 'yaml', 'msgspec'} & set(sys.modules))"

    result = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )

    assert result.stdout.strip() == "set()"
