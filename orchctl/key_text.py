"""API keys as they are shown. Decides the words and columns; a key itself is in one answer only, that of its making."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from orchctl.render import say
from orchctl.table import Column, lay_out
from orchctl.terminal import Screen, Style, one_line
from supervisor.config.keys import ApiKey, Issued

FINGERPRINT_CHARS = 6


class KeyView(Struct, kw_only=True):
    """One key. `state` is active, expired or revoked; `fingerprint` stands in the daemon's log where it was refused."""

    id: str
    tenant: str
    scopes: list[str]
    priorities: list[str]
    state: str
    created: datetime
    expires: datetime | None
    revoked: datetime | None
    fingerprint: str
    note: str


class KeyList(Struct, kw_only=True):
    """`keys list -o json`."""

    file: str
    keys: list[KeyView]


class IssuedView(Struct, kw_only=True):
    """`keys create` and `keys rotate` with `-o json`. `secret` is the key itself."""

    secret: str
    key: KeyView
    file: str
    replaces: str | None


def view_key(key: ApiKey, now: datetime) -> KeyView:
    """What may be shown of a key."""
    state = "active" if key.is_alive(now) else "expired" if key.revoked is None else "revoked"
    return KeyView(
        id=key.id,
        tenant=key.tenant,
        scopes=list(key.scopes),
        priorities=list(key.priorities),
        state=state,
        created=key.created,
        expires=key.expires,
        revoked=key.revoked,
        fingerprint=key.sha256[:FINGERPRINT_CHARS],
        note=key.note,
    )


def view_issued(issued: Issued, path: Path, now: datetime, replaces: str | None) -> IssuedView:
    """A key that was just made."""
    return IssuedView(secret=issued.secret, key=view_key(issued.key, now), file=str(path), replaces=replaces)


def say_issued(view: IssuedView) -> None:
    """The remark beside a new key, on standard error."""
    key = view.key
    until = f", until {_moment(key.expires)}" if key.expires is not None else ""
    say(f"key {key.id} for tenant {key.tenant}: {', '.join(key.scopes)}{until}; digest kept in {one_line(view.file)}")
    if view.replaces is not None:
        say(f"it replaces {view.replaces}, which opens until its grace is over")
    say("this is the only time that it is shown:")


def list_lines(page: KeyList, screen: Screen, *, is_wide: bool) -> Sequence[str]:
    """The table of keys."""
    if not page.keys:
        return [f"there is no key in {one_line(page.file)}; make one with `orchctl keys create --scope data`"]
    keys = page.keys

    def paint(row: int) -> tuple[Style, ...]:
        return (Style.GOOD,) if keys[row].state == "active" else (Style.DIM,)

    columns = [
        Column("ID", [key.id for key in keys]),
        Column("TENANT", [key.tenant for key in keys]),
        Column("SCOPES", [",".join(key.scopes) for key in keys]),
        Column("CLASSES", [",".join(key.priorities) for key in keys], rank=1),
        Column("STATE", [key.state for key in keys], paint=paint),
        Column("EXPIRES", [_moment(key.expires) for key in keys], rank=1),
        Column("NOTE", [one_line(key.note) for key in keys], rank=2, may_shrink=True),
    ]
    if is_wide:
        columns.insert(-1, Column("CREATED", [_moment(key.created) for key in keys], rank=3))
        columns.insert(-1, Column("FINGERPRINT", [key.fingerprint for key in keys], rank=3))
    return lay_out(columns, screen)


def _moment(at: datetime | None) -> str:
    return "never" if at is None else at.strftime("%Y-%m-%d %H:%M UTC")
