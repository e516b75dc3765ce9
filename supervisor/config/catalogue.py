"""The catalogue: which pulled model has which name, digest and files (ORCH-3037). One JSON file in the store's folder.

Decides what an entry may say and whether the file is to be trusted. It opens no model, and a name in it is never a
path: files lie under the digest. It has no secrets, and mode 0644: the daemon's user reads what another one pulled.
"""

import os
import stat
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

FILE_NAME = "catalogue.json"
FILE_BYTES_MAX = 16 * 1024 * 1024
VERSION = 1
ENTRIES_MAX = 4096
FILES_MAX = 1024
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,127}\Z"
DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}\Z"
SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9_.+=@,-]{0,199}"
FILE_PATTERN = rf"^{SEGMENT}(/{SEGMENT}){{0,7}}\Z"
_PLACE_PATTERN = rf"^[0-9a-f]{{64}}(/{SEGMENT})?\Z"
_OTHERS_WRITE = 0o022

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Digest = Annotated[str, Meta(pattern=DIGEST_PATTERN)]
Size = Annotated[int, Meta(ge=0)]
Moment = Annotated[datetime, Meta(tz=True)]
Words = Annotated[str, Meta(max_length=2048)]


class CatalogueError(Exception):
    """The catalogue cannot be used. One sentence without a full stop."""


class StoredFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a model. `path` is relative to the folder of the model, `size` in bytes, `sha256` in hex."""

    path: Annotated[str, Meta(pattern=FILE_PATTERN)]
    size: Size
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Origin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a model came from. `revision` is the commit; a `url` is kept without its query, which may hold a secret."""

    kind: Literal["hub", "url", "file"]
    repo: Words | None = None
    revision: Words | None = None
    url: Words | None = None


class Entry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One name. It is written once all files are on disk and their digest is checked: an entry means a complete model.

    `place` is what an engine is started with, relative to the store: `<hex>/<file>`, or the folder `<hex>` itself.
    """

    name: Name
    digest: Digest
    place: Annotated[str, Meta(pattern=_PLACE_PATTERN)]
    files: Annotated[tuple[StoredFile, ...], Meta(min_length=1, max_length=FILES_MAX)]
    origin: Origin
    added: Moment

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def folder(self) -> str:
        """The name of its folder in the store."""
        return self.digest.removeprefix("sha256:")


class Catalogue(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file, in order of names."""

    version: int = VERSION
    models: Annotated[tuple[Entry, ...], Meta(max_length=ENTRIES_MAX)] = ()

    def find(self, name: str) -> Entry | None:
        """The entry of that name."""
        return next((entry for entry in self.models if entry.name == name), None)

    def with_entry(self, entry: Entry) -> "Catalogue":
        """The catalogue with this entry in place of one of the same name."""
        others = (other for other in self.models if other.name != entry.name)
        return Catalogue(models=tuple(sorted([*others, entry], key=lambda each: each.name)))

    def without(self, name: str) -> "Catalogue":
        """The catalogue without that name."""
        return Catalogue(models=tuple(entry for entry in self.models if entry.name != name))


def read_catalogue(models_dir: Path) -> Catalogue:
    """The catalogue of a store, empty where there is none. Raises CatalogueError; never waits for the file."""
    path = models_dir / FILE_NAME
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return Catalogue()
    except OSError as error:
        cause = "is a symbolic link" if path.is_symlink() else f"cannot be opened: {error.strerror}"
        raise CatalogueError(f"{path} {cause}") from error
    with os.fdopen(fd, "rb") as file:
        _check(path, os.fstat(fd))
        return decode_catalogue(path, file.read(FILE_BYTES_MAX))


def _check(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise CatalogueError(f"{path} is not a regular file")
    if found.st_mode & _OTHERS_WRITE:
        raise CatalogueError(f"others may write to {path}; run: chmod 644 {path}")
    if found.st_uid not in {0, os.geteuid(), path.parent.stat().st_uid}:
        raise CatalogueError(f"{path} belongs to user {found.st_uid}, who owns neither its folder nor this process")
    if found.st_size > FILE_BYTES_MAX:
        raise CatalogueError(f"{path} is larger than {FILE_BYTES_MAX} bytes")


def decode_catalogue(path: Path | str, data: bytes) -> Catalogue:
    """The catalogue in these bytes; `path` names it in messages. Raises CatalogueError."""
    if len(data) > FILE_BYTES_MAX:
        raise CatalogueError(f"{path} is larger than {FILE_BYTES_MAX} bytes")
    try:
        catalogue = msgspec.json.decode(data, type=Catalogue)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path} is not a catalogue of this version: {error}") from error
    names = [entry.name for entry in catalogue.models]
    if catalogue.version != VERSION or len(set(names)) != len(names):
        raise CatalogueError(f"{path} is not a catalogue of this version, or has a name twice")
    if any(not entry.place.startswith(entry.folder) for entry in catalogue.models):
        raise CatalogueError(f"{path} names a file that does not lie under its digest")
    return catalogue
