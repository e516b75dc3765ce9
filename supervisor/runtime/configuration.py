"""The configuration in force: what it says, which generation it is, and how another one is read. Changes no worker."""

from pathlib import Path
from typing import Protocol

from msgspec import structs

from supervisor.config.load import Loaded
from supervisor.config.model import Config
from supervisor.runtime.config_store import ConfigStore, Kept


class ConfigReader(Protocol):
    """The one way to a config. Both block, and raise ConfigError with everything that is wrong."""

    def read(self) -> Loaded:
        """The operator's file as it is now."""

    def parse(self, text: str) -> Loaded:
        """A text in place of the file."""


class Configuration:
    """Held by all who ask what the configuration says now."""

    def __init__(self, loaded: Loaded, reader: ConfigReader, store: ConfigStore, *, is_reverted: bool = False) -> None:
        self.reader = reader
        self._store = store
        self._loaded = loaded
        self._kept = store.open(loaded.text)
        self._is_reverted = is_reverted

    @property
    def config(self) -> Config:
        """What holds."""
        return self._loaded.config

    @property
    def source(self) -> Path:
        """The operator's file."""
        return self._loaded.source

    @property
    def generation(self) -> int:
        """Counts configurations that took effect."""
        return self._kept.generation

    @property
    def previous(self) -> str | None:
        """The text of the generation before; None where there was none."""
        return self._kept.previous

    @property
    def causes(self) -> tuple[str, ...]:
        """What an operator should know of it."""
        if not self._is_reverted:
            return ()
        return (f"{self.source.name} is not in force: generation {self.generation} was brought back; mend the file",)

    @property
    def kept(self) -> Kept:
        """What is on disk of it."""
        return self._kept

    def next_of(self, loaded: Loaded, *, is_changed: bool) -> Kept:
        """What is to be kept when this one takes effect. Other words for the same are no other generation."""
        return self._kept.followed_by(loaded.text) if is_changed else structs.replace(self._kept, text=loaded.text)

    def keep(self, kept: Kept) -> None:
        """On disk, before it takes effect. Blocks; raises OSError, UnsafeStateError."""
        self._store.write(kept)

    def take(self, loaded: Loaded, kept: Kept, *, is_reverted: bool) -> None:
        """From now on this one holds."""
        self._loaded, self._kept, self._is_reverted = loaded, kept, is_reverted

    def knows_models(self, refreshed: Config) -> None:
        """The same configuration, with models that came into the store since."""
        self._loaded = Loaded(refreshed, self._loaded.warnings, self._loaded.source, self._loaded.text)
