"""API keys for tests: made in the file of a daemon as `orchctl keys` makes them, and put into requests."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from supervisor.config.keys import Grant, Issued, changing_keys
from supervisor.wire.codes import Priority, Scope


def now() -> datetime:
    return datetime.now(UTC)


def a_key(
    path: Path,
    *scopes: Scope,
    tenant: str = "default",
    priorities: tuple[Priority, ...] = tuple(Priority),
    lifetime: timedelta | None = None,
) -> Issued:
    """A new key in the file, with the scope `data` unless told otherwise."""
    grant = Grant(tenant=tenant, scopes=scopes or (Scope.DATA,), priorities=priorities, lifetime=lifetime)
    with changing_keys(path, {}) as changes:
        return changes.create(grant, now())


def revoke(path: Path, issued: Issued) -> None:
    with changing_keys(path, {}) as changes:
        changes.revoke(issued.key.id, now())


def rotate(path: Path, issued: Issued, *, grace_s: float = 0) -> Issued:
    """The successor of a key."""
    with changing_keys(path, {}) as changes:
        return changes.rotate(issued.key.id, now(), grace=timedelta(seconds=grace_s))


def bearer(issued: Issued | str) -> dict[str, str]:
    """The header of a request with a key."""
    return {"Authorization": f"Bearer {issued if isinstance(issued, str) else issued.secret}"}
