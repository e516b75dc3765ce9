"""Keeps the text of the configuration in force and of the one before, with the generation number, over restarts.

One small file, replaced whole: after a crash it says the old generation or the new one, never half of it. It holds what
the operator wrote, so only the daemon's user may read it. A file that cannot be used is named and begun anew.

What an operator brought back holds over restarts too: a crash must not bring the refused text into force again.
"""

import functools
import logging
from pathlib import Path

import msgspec
from msgspec import Struct

from supervisor.runtime.kept_file import UnreadableError, read_kept
from supervisor.runtime.private_files import UnsafeStateError, replace_private

NAME = "config.json"
BYTES_MAX = 8 * 1024 * 1024
"""Two files of 1 MiB, each character escaped at worst."""

log = logging.getLogger("orchctl")


class Kept(Struct, frozen=True):
    """`generation` counts configurations that took effect, from 1; `previous` is the text before `text`.

    `is_reverted`: an operator refused `previous`, which the config file still may say.
    """

    generation: int
    text: str
    previous: str | None = None
    is_reverted: bool = False

    def followed_by(self, text: str, *, is_reverted: bool = False) -> "Kept":
        """The next generation."""
        return Kept(self.generation + 1, text, self.text, is_reverted)


class ConfigStore:
    """The file in the state folder."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / NAME

    def brought_back(self, text: str) -> str | None:
        """The text that an operator put in the place of `text`, the file's; None where it is the file that counts."""
        found = self._found
        return found.text if found is not None and found.is_reverted and found.previous == text else None

    def open(self, text: str) -> Kept:
        """What is kept once the daemon starts with this text: the same generation, or the next for another text."""
        found = self._found
        if found is None:
            kept = Kept(1, text)
        elif found.text == text:
            return found
        else:
            kept = found.followed_by(text)
        try:
            self.write(kept)
        except (OSError, UnsafeStateError) as error:
            log.error("the configuration could not be kept", extra={"cause": str(error)})  # noqa: TRY400
        return kept

    def write(self, kept: Kept) -> None:
        """Blocks for an fsync. Raises UnsafeStateError, OSError: what was kept before still stands."""
        replace_private(self._path, msgspec.json.encode(kept))

    @functools.cached_property
    def _found(self) -> Kept | None:
        """What an earlier daemon left: read once, so that damage is told once."""
        try:
            return read_kept(self._path, Kept, BYTES_MAX)
        except UnreadableError as error:
            log.error("the kept configuration could not be read", extra={"cause": str(error)})  # noqa: TRY400
            return None
