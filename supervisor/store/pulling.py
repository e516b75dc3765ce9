"""Brings a model into the store: found, made room for, fetched, put on disk, checked, and only then named.

The numbers of the steps stand in `_bring`. Whatever stops it, what a later try can use stays in the berth, and nothing
that is not checked ever stands where an engine would look.
"""

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx2

from supervisor.config.catalogue import Entry, Origin, StoredFile
from supervisor.store.digests import model_digest, read_git_id, read_sha256
from supervisor.store.faults import StoreError, disk_fault
from supervisor.store.fetching import Order, fetch, too_large
from supervisor.store.flight import DIR_MODE, Berth, Progress, Tell
from supervisor.store.folders import held_folder, open_to_all, read_note, write_note
from supervisor.store.guarded_client import make_client
from supervisor.store.hub import look_into
from supervisor.store.names import name_for, require_file_name, require_model_name, shown
from supervisor.store.reach import Reach, target_of
from supervisor.store.sanity import require_sane
from supervisor.store.selection import Listed, choose_files
from supervisor.store.shelf import FILE_MODE, Shelf, name_taken
from supervisor.store.sources import HubSource, UrlSource

DISK_RESERVE_BYTES = 64 * 1024 * 1024
"""Stays free on the disk of the store, whatever is pulled: the journal may lie on the same."""

NO_ROOM_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Wish:
    """What to pull. `name` None: made of the file's name; `digest`: `sha256:<hex>` that it must have."""

    source: HubSource | UrlSource
    name: str | None
    digest: str | None


@dataclass(frozen=True, slots=True)
class Means:
    """What a pull may use. `make_room` is asked to bring about so many bytes of quota; it raises StoreError.

    `quota_bytes` bounds what comes without a size; None: there is no quota.
    """

    shelf: Shelf
    reach: Reach
    token: str | None
    model_bytes_max: int
    make_room: Callable[[int], None]
    tell: Tell
    quota_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model of the store, and whether it was there already. `is_believed`: nobody said what digest it should have."""

    entry: Entry
    was_there: bool
    is_believed: bool = False


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One file of the plan: where from, under which name, and how it is recognised."""

    url: str
    name: str
    listed: Listed | None


@dataclass(frozen=True, slots=True)
class _Plan:
    name: str
    wanted: tuple[_Wanted, ...]
    entry_file: str | None
    origin: Origin

    @property
    def size(self) -> int | None:
        sizes = [each.listed.size for each in self.wanted if each.listed is not None]
        return sum(sizes) if len(sizes) == len(self.wanted) else None

    @property
    def digest(self) -> str | None:
        """The digest of the model, where the hub says enough."""
        known = [(each.name, each.listed.sha256) for each in self.wanted if each.listed is not None]
        pairs = [(name, sha256) for name, sha256 in known if sha256 is not None]
        return model_digest(pairs) if len(pairs) == len(self.wanted) else None


def pull(wish: Wish, means: Means) -> Pulled:
    """The model in the store, fetched where it is not there. Raises StoreError."""
    if wish.name is not None:
        require_model_name(wish.name)
    means.shelf.prepare()
    berth = Berth(means.shelf.partial, wish.source.key)
    with berth.held(means.tell):
        return _bring(wish, means, berth)


def _bring(wish: Wish, means: Means, berth: Berth) -> Pulled:
    """1. say what; 2. already there; 3. room; 4. fetch; 5. the digest; 6. into the store."""
    plan = _plan(wish, means)
    if wish.digest is not None and plan.digest not in {None, wish.digest}:
        raise _wrong_digest(str(plan.digest))
    if (there := _find_there(plan, wish, means.shelf)) is not None:
        return Pulled(there, was_there=True)
    if plan.size is not None:
        if plan.size > means.model_bytes_max:
            raise too_large(plan.size, means.model_bytes_max)
        require_disk(means.shelf.root, plan.size - berth.bytes_there())
        means.make_room(plan.size)
    berth.prepare()
    if plan.size is not None:
        berth.announce(plan.size)
    with make_client(means.reach, is_for_api=False) as client:
        files = tuple(_take(each, plan, means, berth, client) for each in plan.wanted)
    digest = model_digest((file.path, file.sha256) for file in files)
    if wish.digest is not None and digest != wish.digest:
        berth.discard()
        raise _wrong_digest(digest)
    if plan.size is None:
        means.make_room(sum(file.size for file in files))
    place = digest.removeprefix("sha256:") + (f"/{plan.entry_file}" if plan.entry_file else "")
    entry = Entry(name=plan.name, digest=digest, place=place, files=files, origin=plan.origin, added=_now())
    settle(berth.files)
    entry = means.shelf.admit(berth.finished, entry)
    berth.discard()
    is_believed = plan.digest is None and wish.digest is None and isinstance(wish.source, UrlSource)
    return Pulled(entry, was_there=False, is_believed=is_believed)


def _plan(wish: Wish, means: Means) -> _Plan:
    source = wish.source
    if isinstance(source, UrlSource):
        means.reach.addresses(target_of(source.url))
        name = wish.name or name_for(source.file_name)
        origin = Origin(kind="url", url=source.public_url)
        return _Plan(name, (_Wanted(source.url, source.file_name, None),), source.file_name, origin)
    with make_client(means.reach, is_for_api=True) as client:
        repository = look_into(source, means.reach.base, means.token, client)
    choice = choose_files(repository.listing, source.file)
    wanted = tuple(_Wanted(repository.url_of(listed.path), name, listed) for listed, name in choice.files)
    name = wish.name or name_for(choice.entry_file or source.repo)
    return _Plan(name, wanted, choice.entry_file, Origin(kind="hub", repo=source.repo, revision=repository.commit))


def _find_there(plan: _Plan, wish: Wish, shelf: Shelf) -> Entry | None:
    """The model, where an earlier pull brought exactly this. Raises StoreError where its name means another one."""
    other = shelf.catalogue().find(plan.name)
    if other is None:
        return None
    if other.digest in {wish.digest, plan.digest}:
        return other
    names = {wanted.name for wanted in plan.wanted}
    is_same = other.origin == plan.origin and {file.path for file in other.files} == names
    if is_same and wish.digest is None and plan.digest is None:
        return other
    raise name_taken(other)


def _take(wanted: _Wanted, plan: _Plan, means: Means, berth: Berth, client: httpx2.Client) -> StoredFile:
    """One file, checked, in the berth under its own name. Raises StoreError."""
    above, _, name = require_file_name(wanted.name).rpartition("/")
    with held_folder(berth.files, above, DIR_MODE) as folder:
        return _take_to(folder / name, wanted, plan, means, berth, client)


def _take_to(
    final: Path, wanted: _Wanted, plan: _Plan, means: Means, berth: Berth, client: httpx2.Client
) -> StoredFile:
    incoming = berth.incoming / _identity(wanted)
    try:
        if final.is_file() and not incoming.exists():
            final.replace(incoming)  # it was complete when an earlier try was stopped: checked once more below
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(incoming, flags, FILE_MODE)
    except OSError as error:
        raise disk_fault(f"the beginning of {wanted.name} in {means.shelf.partial} cannot be used", error) from None
    before = sum(path.stat().st_size for path in berth.files.rglob("*") if path.is_file())
    total = plan.size
    try:
        os.fchmod(fd, FILE_MODE)
        _fill(fd, wanted, means, incoming, client, lambda done: means.tell(Progress("fetching", before + done, total)))
        os.fsync(fd)
        size = os.fstat(fd).st_size
        sha256 = _checked(fd, wanted, size, means.tell)
        incoming.replace(final)
    except _WrongContentError:
        incoming.unlink(missing_ok=True)
        raise
    except OSError as error:
        if error.errno in NO_ROOM_CODES:
            incoming.unlink(missing_ok=True)  # what is left of the disk is for the journal
        raise disk_fault(f"{wanted.name} cannot be written to {means.shelf.root}", error) from None
    finally:
        os.close(fd)
    return StoredFile(path=wanted.name, size=size, sha256=sha256)


class _WrongContentError(StoreError):
    """What was fetched is not what was announced: no later try can use it."""


def _identity(wanted: _Wanted) -> str:
    """The name of the partial file: of another content it is another one, so nothing is ever put together of two."""
    if wanted.listed is None:
        return "url"
    known = wanted.listed.sha256 or wanted.listed.git_id
    return known if known.isalnum() and len(known) <= 64 else model_digest([("", known)])[-12:]


def _fill(
    fd: int, wanted: _Wanted, means: Means, incoming: Path, client: httpx2.Client, note: Callable[[int], None]
) -> None:
    listed, etag_file = wanted.listed, incoming.with_name("etag")

    def require_room(missing: int) -> None:
        require_disk(means.shelf.root, missing)

    if listed is not None:
        headers = {"Authorization": f"Bearer {means.token}"} if means.token else {}
        bound = means.model_bytes_max
        order = Order(wanted.url, listed.size, bound, is_immutable=True, headers=headers, require_room=require_room)
        fetch(client, order, fd, note)
        return
    seen = read_note(etag_file)

    def keep(etag: str | None) -> None:
        if etag is None:
            etag_file.unlink(missing_ok=True)
        else:
            write_note(etag_file, etag.encode("latin-1", "replace"))

    order = Order(
        wanted.url,
        None,
        means.model_bytes_max,
        validator=None if seen is None else seen.decode("latin-1"),
        require_room=require_room,
        announce=means.make_room,
        unannounced_bytes_max=means.quota_bytes,
    )
    fetch(client, order, fd, note, keep)


def _checked(fd: int, wanted: _Wanted, size: int, tell: Tell) -> str:
    """The sha256 of a file that is what the hub said and looks like a model. Raises StoreError."""
    done = 0

    def note(count: int) -> None:
        nonlocal done
        done += count
        tell(Progress("checking", done, size))

    sha256 = read_sha256(fd, note)
    listed = wanted.listed
    if listed is not None:
        found = sha256 if listed.sha256 is not None else read_git_id(fd, size)
        if found != (listed.sha256 or listed.git_id):
            cause = f"{shown(wanted.name)} is not what the hub lists: its digest differs"
            raise _WrongContentError(cause, "nothing of it was kept; pull it again")
    try:
        require_sane(fd, wanted.name)
    except StoreError as error:
        raise _WrongContentError(error.cause, error.next_step) from None
    return sha256


def _wrong_digest(digest: str) -> StoreError:
    return StoreError(f"its digest is {digest}, not the one that was asked for", "nothing was kept; check the source")


def require_disk(root: Path, missing: int) -> None:
    """Whether so many bytes more fit on the disk. Raises StoreError."""
    free = shutil.disk_usage(root).free
    if missing + DISK_RESERVE_BYTES > free:
        need = f"{missing + DISK_RESERVE_BYTES} bytes are needed on the disk of {root}, and {free} are free"
        raise StoreError(need, "make room with `orchctl models prune`")


def settle(files: Path) -> None:
    """The names of the files, on disk, and readable for the daemon whatever the umask is. Raises StoreError."""
    try:
        open_to_all(files, DIR_MODE)
    except OSError as error:
        raise disk_fault("the folders of the model cannot be written", error) from None


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
