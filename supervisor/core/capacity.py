"""What fits, in start order: the same sums as the gate of headroom, done ahead. Pure; starts nothing."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from supervisor.core.memory_need import DeviceNeed, reserve_mib
from supervisor.core.needs import Need


class Verdict(StrEnum):
    """What would become of a pool. These words are shown to operators."""

    RUNS = "runs"
    FITS = "fits"
    WAITS = "waits"
    NEVER = "never"
    UNKNOWN = "unknown"


class Candidate(Struct, frozen=True):
    """One pool: its devices (UUIDs in mask order) and needs, empty where nobody knows.

    `has_memory`: it runs and took what it needs already. `refused` says why it can never work.
    """

    pool_id: str
    devices: tuple[str, ...]
    needs: tuple[Need, ...]
    parts: tuple[DeviceNeed, ...] = ()
    has_memory: bool = False
    refused: str | None = None


class Share(Struct, frozen=True):
    """One device of one pool. MiB."""

    device: str
    need: Need
    reserve_mib: int
    free_before_mib: int
    free_after_mib: int


class Judged(Struct, frozen=True):
    """What would become of one pool, and why."""

    pool_id: str
    verdict: Verdict
    shares: tuple[Share, ...]
    cause: str | None = None


def plan_starts(candidates: Sequence[Candidate], free_mib: Mapping[str, int]) -> tuple[Judged, ...]:
    """Judge pools one after the other; each that fits leaves less for those behind it."""
    left = dict(free_mib)
    judged = []
    for candidate in candidates:
        found = _judge(candidate, left)
        if found.verdict is Verdict.FITS:
            for share in found.shares:
                left[share.device] = share.free_after_mib
        judged.append(found)
    return tuple(judged)


def _judge(candidate: Candidate, left: Mapping[str, int]) -> Judged:
    shares = _shares_of(candidate, left)
    if candidate.refused is not None:
        return Judged(candidate.pool_id, Verdict.NEVER, shares, candidate.refused)
    if candidate.has_memory:
        return Judged(candidate.pool_id, Verdict.RUNS, shares)
    if not shares:
        return Judged(candidate.pool_id, Verdict.UNKNOWN, (), "its devices or the size of its model are not known")
    short = [share for share in shares if share.need.mib + share.reserve_mib > share.free_before_mib]
    if short:
        lacks = ", ".join(
            f"{share.device} has {share.free_before_mib} MiB left of {share.need.mib + share.reserve_mib}"
            for share in short
        )
        return Judged(candidate.pool_id, Verdict.WAITS, shares, lacks)
    return Judged(candidate.pool_id, Verdict.FITS, shares)


def _shares_of(candidate: Candidate, left: Mapping[str, int]) -> tuple[Share, ...]:
    shares = []
    for at, (device, need) in enumerate(zip(candidate.devices, candidate.needs, strict=False)):
        parts = candidate.parts[at] if at < len(candidate.parts) else None
        reserve = reserve_mib(need.mib)
        if parts is not None and parts.total_share:  # its reserve is outside the share of the device that it takes
            reserve = max(parts.sum_mib + reserve_mib(parts.sum_mib) - need.mib, 0)
        before = left.get(device, 0)
        after = before if candidate.has_memory else before - need.mib
        shares.append(Share(device, need, reserve, before, after))
    return tuple(shares)
