"""The store on disk: where what lies, and how a model becomes part of it. Every step is whole or not there.

    catalogue.json        names -> digest and files
    <hex>/                the files of one model, under its digest; the folder appears complete, by a rename
    partial/<key>/        a download under way; partial/<key>.lock is held by the one who works on it
    used/<hex>            its time is when the model was last loaded

Folders are 0755 and files 0644: a daemon of another user reads them. It decides nothing about what may be thrown away.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import msgspec

from supervisor.config.catalogue import (
    FILE_NAME,
    Catalogue,
    CatalogueError,
    Entry,
    decode_catalogue,
    read_catalogue,
)
from supervisor.config.secret_files import SecretFileError, editing
from supervisor.store.faults import Kind, StoreError, disk_fault
from supervisor.store.flight import DIR_MODE
from supervisor.store.folders import held_folder, remove_tree
from supervisor.store.holding import alone

FILE_MODE = 0o644


Needed = Callable[[Catalogue], Collection[str]]
"""The digests that must stay, asked at the last moment: nobody else changes the store or begins to load the model."""


class Shelf:
    """One store. Methods raise StoreError."""

    def __init__(self, models_dir: Path) -> None:
        self.root = models_dir
        self.partial = models_dir / "partial"
        self._used = models_dir / "used"

    def catalogue(self) -> Catalogue:
        """What is in it; an empty one where there is no store yet."""
        try:
            return read_catalogue(self.root)
        except CatalogueError as error:
            raise StoreError(str(error), "mend or remove that file; the models themselves stay") from None
        except OSError as error:
            raise disk_fault(f"the catalogue of {self.root} cannot be read", error) from None

    def prepare(self) -> None:
        """Make the folders."""
        try:
            if not os.path.lexists(self.root):
                self.root.mkdir(mode=DIR_MODE, parents=True, exist_ok=True)
                self.root.chmod(DIR_MODE)
        except OSError as error:
            raise disk_fault(f"the store {self.root} cannot be used", error) from None
        for folder in (self.partial, self._used):
            is_new = not os.path.lexists(folder)
            with held_folder(self.root, folder.name, DIR_MODE) as here:
                if is_new:
                    _chmod(here)

    def admit(self, files: Path, entry: Entry) -> Entry:
        """Take in the folder `files`, whose content is on disk and checked, and then its entry.

        A folder of the same digest that another name already uses is kept, and `files` is dropped: the entry then names
        the files that are there. Gives the entry as it stands in the catalogue.
        """
        with self._editing() as here:
            home = here / entry.folder
            catalogue = self.catalogue()
            _require_free(catalogue, entry)
            twin = next((other for other in catalogue.models if other.digest == entry.digest), None)
            if twin is not None and home.is_dir():
                entry = msgspec.structs.replace(entry, place=twin.place, files=twin.files)
            _require_readable(catalogue.with_entry(entry))
            try:
                if twin is not None and home.is_dir():
                    shutil.rmtree(files)
                else:
                    remove_tree(here, entry.folder)  # a crash left it between its rename and its entry
                    files.rename(home)
                    sync_folder(here)
            except OSError as error:
                raise disk_fault(f"the model cannot be moved to {self.root / entry.folder}", error) from None
            self._write(here, catalogue.with_entry(entry))
        return entry

    def drop(self, digest: str, needed: Needed) -> bool:
        """Forget every name of this digest, then throw its files away; not where it is needed by now."""
        with self._editing() as here:
            catalogue = self.catalogue()
            named = [one for one in catalogue.models if one.digest == digest]
            with alone(named, here) as is_free:
                if not is_free or digest in needed(catalogue):
                    return False
                self._drop(here, catalogue, digest)
        return True

    def forget(self, entry: Entry, needed: Needed) -> bool:
        """Forget a name, and throw its files away where no other name has them; not where they are needed by now."""
        with self._editing() as here:
            catalogue = self.catalogue()
            named = [one for one in catalogue.models if one.digest == entry.digest]
            if entry.name not in {one.name for one in named}:
                return False
            with alone(named, here) as is_free:
                if not is_free or entry.digest in needed(catalogue):
                    return False
                if len(named) > 1:
                    self._write(here, catalogue.without(entry.name))
                else:
                    self._drop(here, catalogue, entry.digest)
        return True

    def _drop(self, here: Path, catalogue: Catalogue, digest: str) -> None:
        folder = digest.removeprefix("sha256:")
        self._write(here, Catalogue(models=tuple(entry for entry in catalogue.models if entry.digest != digest)))
        with contextlib.suppress(StoreError, OSError), held_folder(here, self._used.name) as used:
            (used / folder).unlink()
        remove_tree(here, folder)
        if os.path.lexists(here / folder):
            raise StoreError(f"the files of {digest[:19]} cannot be removed whole", f"see {self.root / folder}")

    def used_at(self, entry: Entry) -> float:
        """When the model was last loaded or taken in: seconds of the wall clock."""
        with contextlib.suppress(OSError):
            return max((self._used / entry.folder).stat().st_mtime, entry.added.timestamp())
        return entry.added.timestamp()

    @contextlib.contextmanager
    def _editing(self) -> Iterator[Path]:
        """Nobody else changes the store. Gives its folder, held."""
        if not os.path.lexists(self.root):
            self.prepare()
        with held_folder(self.root) as here:
            try:
                with editing(here / FILE_NAME):
                    yield here
            except SecretFileError as error:
                cause = str(error).replace(str(here), str(self.root))
                raise StoreError(cause, None, Kind.LATER) from None

    def _write(self, here: Path, catalogue: Catalogue) -> None:
        path = here / FILE_NAME
        temporary = path.with_name(f".{FILE_NAME}.new")
        try:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(temporary, flags, FILE_MODE), "wb") as file:  # noqa: PTH123  (a descriptor)
                os.fchmod(file.fileno(), FILE_MODE)
                file.write(msgspec.json.format(msgspec.json.encode(catalogue), indent=2) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(here)
        except OSError as error:
            raise disk_fault(f"{self.root / FILE_NAME} cannot be written", error) from None


def _chmod(folder: Path) -> None:
    """The rights that the umask may have taken, of a folder that we hold and have just made."""
    with contextlib.suppress(OSError):
        folder.chmod(DIR_MODE)


def _require_readable(catalogue: Catalogue) -> None:
    """One entry that could not be read again would make the whole store unusable."""
    try:
        decode_catalogue(FILE_NAME, msgspec.json.encode(catalogue))
    except (CatalogueError, ValueError) as error:  # ValueError: a name that is no text
        raise StoreError(f"the model cannot be entered: {error}", "give it a shorter source or path") from None


def _require_free(catalogue: Catalogue, entry: Entry) -> None:
    """A name stands for one model for as long as it is there."""
    other = catalogue.find(entry.name)
    if other is not None and other.digest != entry.digest:
        raise name_taken(other)


def name_taken(other: Entry) -> StoreError:
    """The refusal of a second model under one name."""
    step = f"give the new one another `--name`, or `orchctl models remove {other.name}` first"
    return StoreError(f"{other.name} is already the model {other.digest[:19]}", step)


def note_use(root: Path, digest: str) -> None:
    """Remember that a model of the store was loaded now, where this user may write that down. No link is followed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with contextlib.suppress(StoreError, OSError), held_folder(root, "used") as used:
        fd = os.open(used / digest.removeprefix("sha256:"), flags, FILE_MODE)
        try:
            os.utime(fd)
        finally:
            os.close(fd)


def sync_folder(path: Path) -> None:
    """Make renames and removals in the folder lasting. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
