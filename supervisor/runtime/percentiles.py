"""Percentiles over the recent past of one figure."""

from collections import deque

_WINDOW = 512


class Recent:
    """The last samples of a figure, in milliseconds."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=_WINDOW)

    def add(self, sample_ms: float) -> None:
        """One more."""
        self._samples.append(sample_ms)

    def at(self, *shares: float) -> list[float | None]:
        """The nearest-rank percentile for each share in [0, 1]; None without samples."""
        ordered = sorted(self._samples)
        if not ordered:
            return [None for _ in shares]
        return [round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 1) for share in shares]
