"""Public words of the model store: where the daemon reads it."""

from msgspec import Struct


class StoreView(Struct, kw_only=True):
    """The store of a daemon: its folder, and the config file that says what may be fetched and kept. Absolute paths."""

    models_dir: str
    config_file: str
