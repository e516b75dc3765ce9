"""Which processors lie next to some GPUs (ORCH-3013): a hint, from what the host says of where its GPUs sit."""

from collections.abc import Iterable


def near(cpus_of_gpus: Iterable[tuple[int, ...] | None], *, allowed: frozenset[int]) -> frozenset[int]:
    """The processors next to these GPUs that this process may use; empty where that is no hint.

    It is none where a GPU does not say, where nothing of it may be used, and where it is all there is.
    """
    found: set[int] = set()
    for cpus in cpus_of_gpus:
        if cpus is None:
            return frozenset()
        found.update(cpus)
    usable = frozenset(found) & allowed
    return frozenset() if usable == allowed else usable
