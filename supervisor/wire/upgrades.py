"""Replies of the control plane about `orchctl upgrade`: the daemon replaces itself in place."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

UPGRADE_DEADLINE_MS_MAX = 86_400_000


class UpgradeState(StrEnum):
    """How far it is. After `leaving` the same address is answered by the next life."""

    NONE = "none"
    CHECKING = "checking"
    QUIESCING = "quiescing"
    LEAVING = "leaving"
    REFUSED = "refused"


class UpgradeRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/upgrade`: what runs may end within `deadline_ms` milliseconds; after that strict tasks are cut."""

    deadline_ms: Annotated[int, Meta(ge=0, le=UPGRADE_DEADLINE_MS_MAX)]


class UpgradeStatus(Struct, kw_only=True):
    """`life` is another one once the daemon has replaced itself; `cause` says why it did not."""

    life: str
    version: str
    state: UpgradeState
    cause: str | None = None
