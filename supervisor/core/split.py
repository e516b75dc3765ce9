"""Which of an alias's replica sets a task goes to while a canary takes a share of it (ORCH-3033).

A session has a bucket that follows from its id, so that a conversation stays on one side for as long as the share
stands, and a share that grows moves nobody back. Decides nothing else: a side that does not serve is not chosen.
"""

from msgspec import Struct

from supervisor.core.replicas import ReplicaSet

BUCKETS = 10_000


class Split(Struct, frozen=True):
    """Sessions in the first `canary_buckets` of `BUCKETS` go to the sets of these pools."""

    canary_pools: frozenset[str]
    canary_buckets: int


def narrow(homes: tuple[ReplicaSet, ...], split: Split | None, bucket: int) -> tuple[ReplicaSet, ...]:
    """The sets on the side of this bucket; all of them where nothing is split, or that side does not serve now."""
    side = side_of(homes, split, bucket)
    return side if split is None or any(home.can_serve for home in side) else homes


def side_of(homes: tuple[ReplicaSet, ...], split: Split | None, bucket: int) -> tuple[ReplicaSet, ...]:
    """The sets on the side of this bucket, whether they serve now or not; all of them where nothing is split."""
    if split is None:
        return homes
    is_wanted = bucket < split.canary_buckets
    return tuple(home for home in homes if _is_canary(home, split) is is_wanted)


def _is_canary(home: ReplicaSet, split: Split) -> bool:
    return any(member.pool_id in split.canary_pools for member in home.members)
