"""Models of the store as they are shown, and sizes as people write them. Decides words and columns."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct

from orchctl.exits import usage
from orchctl.table import Column, lay_out
from orchctl.terminal import Screen, one_line
from supervisor.config.catalogue import Entry, StoredFile
from supervisor.store.eviction import EvictionPlan

DIGEST_CHARS = 19
_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_SIZE = re.compile(r"(\d{1,15})(|B|KiB|MiB|GiB|TiB)", re.IGNORECASE | re.ASCII)


class ModelView(Struct, kw_only=True):
    """One name. `path` is what an engine is started with, `used` when it was last loaded."""

    name: str
    digest: str
    size: int
    source: str
    revision: str | None
    path: str
    files: list[StoredFile]
    added: datetime
    used: datetime


class ModelList(Struct, kw_only=True):
    """`models list -o json`. `size` counts what several names share once; `max_bytes` is the quota."""

    dir: str
    size: int
    max_bytes: int | None
    models: list[ModelView]


class CheckView(Struct, kw_only=True):
    """One model that `models verify` read. `cause` says what is wrong with it."""

    name: str
    digest: str
    valid: bool
    cause: str | None = None


class VictimView(Struct, kw_only=True):
    """One model that is, or would be, thrown away."""

    digest: str
    names: list[str]
    size: int


class PruneView(Struct, kw_only=True):
    """`models prune -o json`. `leftovers` are broken-off downloads."""

    removed: list[VictimView]
    leftovers: int
    before_bytes: int
    after_bytes: int
    dry_run: bool


def view_model(entry: Entry, root: str, used_s: float) -> ModelView:
    """What is shown of an entry."""
    origin = entry.origin
    source = f"repo:{origin.repo}" if origin.kind == "hub" else str(origin.url)
    return ModelView(
        name=entry.name,
        digest=entry.digest,
        size=entry.size,
        source=source,
        revision=origin.revision,
        path=f"{root}/{entry.place}",
        files=list(entry.files),
        added=entry.added,
        used=datetime.fromtimestamp(used_s, UTC).replace(microsecond=0),
    )


def list_lines(page: ModelList, screen: Screen, *, is_wide: bool) -> Sequence[str]:
    """The table of models."""
    if not page.models:
        return [f"there is no model in {one_line(page.dir)}; fetch one with `orchctl models pull repo:org/name`"]
    models = page.models
    columns = [
        Column("NAME", [model.name for model in models]),
        Column("SIZE", [size_text(model.size) for model in models], is_number=True),
        Column("DIGEST", [model.digest if is_wide else model.digest[:DIGEST_CHARS] for model in models], rank=1),
        Column("USED", [_day(model.used) for model in models], rank=2),
        Column("SOURCE", [one_line(model.source) for model in models], rank=3, may_shrink=True),
    ]
    if is_wide:
        columns.insert(-1, Column("REVISION", [(model.revision or "-")[:12] for model in models], rank=4))
    quota = f" of {size_text(page.max_bytes)}" if page.max_bytes is not None else ""
    return [*lay_out(columns, screen), f"{size_text(page.size)}{quota} in {one_line(page.dir)}"]


def view_prune(plan: EvictionPlan, leftovers: int, *, dry_run: bool) -> PruneView:
    """What `models prune` did or would do."""
    removed = [VictimView(digest=one.digest, names=list(one.names), size=one.size) for one in plan.victims]
    return PruneView(
        removed=removed,
        leftovers=leftovers,
        before_bytes=plan.before_bytes,
        after_bytes=plan.after_bytes,
        dry_run=dry_run,
    )


def prune_lines(view: PruneView) -> Sequence[str]:
    """The plan or the outcome, model by model."""
    would = "would remove" if view.dry_run else "removed"
    lines = [f"{would} {', '.join(one.names)} ({size_text(one.size)})" for one in view.removed]
    if view.leftovers:
        lines.append(f"{would} {view.leftovers} broken-off downloads")
    return [*lines, f"{size_text(view.before_bytes)} before, {size_text(view.after_bytes)} after"]


def size_bytes(text: str, option: str) -> int:
    """Bytes of `50GiB`, `800MiB` or a bare number. Raises a usage VerbError that names `option`."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise usage(f"{option} wants a size, not {one_line(text[:40])!r}", "write it as 50GiB, 800MiB or 0")
    return int(match[1]) * _UNITS[match[2].upper()]


def size_text(size: int) -> str:
    """Bytes for a person: `4.1 GiB`."""
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"


def _day(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M")
