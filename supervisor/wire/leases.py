"""Leases of GPUs on the control plane: what is asked, and how far each has come. Times are milliseconds."""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

LEASE_MS_MIN = 1_000
LEASE_MS_MAX = 30 * 86_400_000
DRAIN_MS_MAX = 86_400_000
DRAIN_MS_DEFAULT = 30_000
DEVICES_MAX = 64

DeviceName = Annotated[str, Meta(min_length=1, max_length=96, pattern="^[A-Za-z0-9:_-]+$")]


class LeaseRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/leases`: take `devices` (`gpu:1`, or a UUID) for `for_ms`.

    What runs on them may end within `drain_ms`. `drain_to` names the pool that serves in place of those that give way.
    With `until_exit` the lease ends with the process that asked, too.
    """

    devices: Annotated[list[DeviceName], Meta(min_length=1, max_length=DEVICES_MAX)]
    for_ms: Annotated[int, Meta(ge=LEASE_MS_MIN, le=LEASE_MS_MAX)]
    drain_ms: Annotated[int, Meta(ge=0, le=DRAIN_MS_MAX)] | UnsetType = UNSET
    drain_to: Annotated[str, Meta(max_length=64)] | UnsetType = UNSET
    purpose: Annotated[str, Meta(max_length=200)] | UnsetType = UNSET
    until_exit: bool | UnsetType = UNSET


class LeaseView(Struct, kw_only=True):
    """One lease. `state`: draining, stopping, verifying, held or ended; `pools` are those that gave way for it."""

    lease_id: str
    state: str
    devices: list[str]
    owner: str
    purpose: str
    expires_in_ms: int
    pools: list[str]
    drain_to: str | None = None
    holder_pid: int | None = None
    cause: str | None = None


class LeasePage(Struct, kw_only=True):
    """`GET /v1/leases`."""

    leases: list[LeaseView]
