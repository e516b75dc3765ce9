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

    def __init__(self, loaded: Loaded, reader: ConfigReader, store: ConfigStore, *, is_file: bool = True) -> None:
        self.reader = reader
        self._store = store
        self._loaded = loaded
        self._kept = store.open(loaded.text)
        self._is_file = is_file
        """Whether it is what the file said when it was last read."""

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
        if self._is_file:
            return ()
        what = f"{self.source.name} is not in force: generation {self.generation} was brought back"
        return (f"{what}; mend the file, or take it up with `orchctl reload`",)

    @property
    def kept(self) -> Kept:
        """What is on disk of it."""
        return self._kept

    def next_of(self, loaded: Loaded, *, is_changed: bool, is_reverted: bool) -> Kept:
        """What is to be kept when this one takes effect. Other words for the same are no other generation.

        Who reverts twice is back at what the file says.
        """
        is_reverted = is_reverted and not self._kept.is_reverted
        if is_changed:
            return self._kept.followed_by(loaded.text, is_reverted=is_reverted)
        return structs.replace(self._kept, text=loaded.text, is_reverted=is_reverted)

    def keep(self, kept: Kept) -> None:
        """On disk, before it takes effect. Blocks; raises OSError, UnsafeStateError."""
        self._store.write(kept)

    def take(self, loaded: Loaded, kept: Kept) -> None:
        """From now on this one holds."""
        self._loaded, self._kept, self._is_file = loaded, kept, not kept.is_reverted

    def knows_models(self, refreshed: Config) -> None:
        """The same configuration, with models that came into the store since."""
        self._loaded = Loaded(refreshed, self._loaded.warnings, self._loaded.source, self._loaded.text)
