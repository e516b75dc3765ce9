"""What is thrown away when the store is too large (ORCH-3042): what was used longest ago, and never what is needed.

Pure. The unit is a digest: names that share one go together, and its bytes count once.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from supervisor.config.catalogue import Catalogue, Entry


@dataclass(frozen=True, slots=True)
class Victim:
    """A model to throw away, with all of its names."""

    digest: str
    names: tuple[str, ...]
    size: int


@dataclass(frozen=True, slots=True)
class EvictionPlan:
    """Bytes before and after; `is_enough` is false where what may go is not enough."""

    victims: tuple[Victim, ...]
    before_bytes: int
    after_bytes: int
    is_enough: bool


def plan_eviction(
    catalogue: Catalogue, to_bytes: int, needed: Collection[str], used_at: Callable[[Entry], float]
) -> EvictionPlan:
    """The fewest, oldest models whose going brings the store down to `to_bytes`. `needed` are digests that stay."""
    by_digest: dict[str, list[Entry]] = {}
    for entry in catalogue.models:
        by_digest.setdefault(entry.digest, []).append(entry)
    size = {digest: entries[0].size for digest, entries in by_digest.items()}
    before = after = sum(size.values())
    victims: list[Victim] = []
    for digest in sorted(by_digest, key=lambda each: (max(map(used_at, by_digest[each])), each)):
        if after <= to_bytes:
            break
        if digest in needed:
            continue
        victims.append(Victim(digest, tuple(entry.name for entry in by_digest[digest]), size[digest]))
        after -= size[digest]
    return EvictionPlan(tuple(victims), before, after, after <= to_bytes)
