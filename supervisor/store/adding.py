"""Takes a model that is on this machine already into the store: copied, checked, and then named like a pulled one."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from supervisor.config.catalogue import Entry, Origin, StoredFile
from supervisor.store.digests import model_digest, read_sha256
from supervisor.store.faults import StoreError, disk_fault
from supervisor.store.flight import DIR_MODE, Berth, Progress, Tell
from supervisor.store.folders import held_folder
from supervisor.store.names import require_file_name, require_model_name
from supervisor.store.parts import Part, open_model
from supervisor.store.pulling import require_disk, settle
from supervisor.store.sanity import require_sane
from supervisor.store.shelf import FILE_MODE, Shelf, name_taken

_CHUNK_BYTES = 64 * 1024 * 1024


def add(path: Path, name: str, shelf: Shelf, make_room: Callable[[int], None], tell: Tell) -> Entry:
    """Copy the file (with all its shards) or folder at `path`. The original stays as it is. Raises StoreError."""
    require_model_name(name)
    shelf.prepare()
    berth = Berth(shelf.partial, f"add-{name}")
    with berth.held(tell):
        berth.discard()
        try:
            return _add(path.absolute(), name, shelf, berth, make_room, tell)
        except OSError as error:
            fault = disk_fault(f"{path} cannot be taken in", error)
            step = fault.next_step or "name a model file, or a folder that has one"
            raise StoreError(fault.cause, step, fault.kind) from None
        finally:
            berth.discard()


def _add(path: Path, name: str, shelf: Shelf, berth: Berth, make_room: Callable[[int], None], tell: Tell) -> Entry:
    with open_model(path, None) as parts:
        total = sum(os.fstat(part.fd).st_size for part in parts)
        require_disk(shelf.root, total)
        make_room(total)
        berth.prepare()
        berth.announce(total)
        files: list[StoredFile] = []
        for part in parts:
            files.append(_copy(part, berth.files, tell, sum(file.size for file in files), total))
        is_folder = path.is_dir()
    digest = model_digest((file.path, file.sha256) for file in files)
    other = shelf.catalogue().find(name)
    if other is not None and other.digest != digest:
        raise name_taken(other)
    place = digest.removeprefix("sha256:") + ("" if is_folder else f"/{path.name}")
    origin = Origin(kind="file", url=str(path))
    now = datetime.now(UTC).replace(microsecond=0)
    entry = Entry(name=name, digest=digest, place=place, files=tuple(files), origin=origin, added=now)
    settle(berth.files)
    return shelf.admit(berth.finished, entry)


def _copy(part: Part, folder: Path, tell: Tell, before: int, total: int) -> StoredFile:
    """One file: the digest is that of the copy. The kernel shares the blocks where the file system can."""
    require_sane(part.fd, part.name)
    above, _, name = require_file_name(part.name).rpartition("/")
    with held_folder(folder, above, DIR_MODE) as here:
        fd = os.open(here / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        os.fchmod(fd, FILE_MODE)
        size = 0
        while count := os.copy_file_range(part.fd, fd, _CHUNK_BYTES, size, size):
            size += count
            tell(Progress("fetching", before + size, total))
        if size != os.fstat(part.fd).st_size:
            raise StoreError(f"{part.path} changes while it is copied", "try again when it is complete")
        os.fsync(fd)
        return StoredFile(path=part.name, size=size, sha256=read_sha256(fd))
    finally:
        os.close(fd)
