"""Where this daemon keeps its state, logs and socket, once the config and the user's defaults are put together."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from supervisor.config.keys import find_key_file
from supervisor.config.model import Config
from supervisor.config.paths import Defaults


@dataclass(frozen=True, slots=True)
class Places:
    """Absolute paths; nothing says that they exist."""

    state_dir: Path
    log_dir: Path
    socket: Path
    keys_file: Path
    models_dir: Path


def plan_places(config: Config, defaults: Defaults, environ: Mapping[str, str]) -> Places:
    """What the config says, else the default; logs and keys go below the state folder unless told otherwise."""
    state_dir = config.state_dir or defaults.state_dir
    return Places(
        state_dir,
        config.log_dir or state_dir / "logs",
        config.listen.socket or defaults.socket,
        find_key_file(config.auth.keys_file, state_dir, environ),
        find_models_dir(config, defaults.state_dir),
    )


def find_models_dir(config: Config, default_state_dir: Path) -> Path:
    """The folder of the model store: `store.dir`, else `models` below the state folder."""
    return config.store.dir or (config.state_dir or default_state_dir) / "models"
