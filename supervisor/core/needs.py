"""What workers were seen to need: kept for each recipe and engine version, over restarts (ORCH-3039). Pure.

A recipe names all that decides a need: model digest, context, slots, split, devices and arguments. Which need holds:

1. nothing observed: the estimate;
2. more observed than estimated, or a floor that an OOM left: what was observed;
3. less observed, in enough stable runs: what was observed, never less than any peak;
4. less observed, in too few runs: the estimate.
"""

from msgspec import Struct, field, structs

from supervisor.core.memory_need import NeedSource, need_fitting

STABLE_RUNS_MIN = 3
"""Stable runs before an observation may lower a need: the peak of one run is that run's traffic."""
OOM_RAISE_PERCENT = 110
ENTRIES_MAX = 1_024
PEAK_STEP_MIB = 16
"""A peak that rises by less is noise: it is not written to disk each time."""
MIB_MAX = 1 << 24


class LearnedNeed(Struct, frozen=True):
    """What was observed under one recipe with one engine version. MiB, devices in mask order.

    `floors` are what an OOM taught: no need goes below them. `runs` counts workers that were stable, `load_ms` is how
    long the last one took from its start to Ready.
    """

    recipe: str
    engine_version: str
    peaks: tuple[int, ...] = ()
    floors: tuple[int, ...] = ()
    host_floor: int = 0
    runs: int = 0
    load_ms: float | None = None


class Need(Struct, frozen=True):
    """The need that holds, where it comes from, and why, as a clause for operators."""

    mib: int
    source: NeedSource
    why: str


class NeedsBook(Struct):
    """All that was learned, by recipe and version; the last one that was written to is the last one in it."""

    entries: dict[tuple[str, str], LearnedNeed] = field(default_factory=dict)

    def find(self, recipe: str) -> LearnedNeed | None:
        """What is known of a recipe: with the engine version that ran last, for the next one is likely the same."""
        return next((each for each in reversed(self.entries.values()) if each.recipe == recipe), None)

    def restore(self, entries: tuple[LearnedNeed, ...]) -> None:
        """Take up what an earlier daemon learned."""
        for each in entries[-ENTRIES_MAX:]:
            self.entries[each.recipe, each.engine_version] = each

    def note_peak(self, recipe: str, version: str, held: tuple[int, ...]) -> bool:
        """A worker holds this much on its devices; says whether that taught anything."""
        entry = self._entry(recipe, version)
        peaks = highest(entry.peaks, held)
        if all(new < old + PEAK_STEP_MIB for new, old in zip(peaks, entry.peaks or (-PEAK_STEP_MIB,), strict=False)):
            return False
        self._put(structs.replace(entry, peaks=peaks))
        return True

    def note_load(self, recipe: str, version: str, load_ms: float) -> None:
        """A worker became Ready after so long."""
        self._put(structs.replace(self._entry(recipe, version), load_ms=load_ms))

    def note_stable(self, recipe: str, version: str) -> None:
        """A worker served for long enough that its peak means something. Enough of them lower what an OOM left."""
        entry = self._entry(recipe, version)
        entry = structs.replace(entry, runs=entry.runs + 1)
        if entry.runs >= STABLE_RUNS_MIN and entry.peaks:
            entry = structs.replace(entry, floors=_lowest(entry.floors, tuple(map(_raised, entry.peaks))))
        self._put(entry)

    def note_vram_oom(self, recipe: str, version: str, used: tuple[int, ...]) -> None:
        """Memory of a GPU was not enough: the next worker needs what this one used, and a tenth more.

        `used` is what was measured, or estimated where that is more: never what an OOM before made of it, or the need
        would grow with each of them whatever the engine takes. Stable runs count anew.
        """
        entry = self._entry(recipe, version)
        raised = tuple(map(_raised, highest(entry.peaks, used)))
        self._put(structs.replace(entry, floors=highest(entry.floors, raised), runs=0))

    def note_host_oom(self, recipe: str, version: str, used_mib: int) -> None:
        """The same for the memory of the host; what GPUs need is not touched."""
        entry = self._entry(recipe, version)
        raised = _raised(max(used_mib, entry.host_floor))
        self._put(structs.replace(entry, host_floor=raised))

    def _entry(self, recipe: str, version: str) -> LearnedNeed:
        """An unknown version begins with the floors of the one before: an OOM is not forgotten by an upgrade."""
        found = self.entries.get((recipe, version))
        if found is not None:
            return found
        older = self.find(recipe)
        floors, host_floor = ((), 0) if older is None else (older.floors, older.host_floor)
        return LearnedNeed(recipe, version, floors=floors, host_floor=host_floor)

    def _put(self, entry: LearnedNeed) -> None:
        key = (entry.recipe, entry.engine_version)
        self.entries.pop(key, None)
        self.entries[key] = entry
        while len(self.entries) > ENTRIES_MAX:
            del self.entries[next(iter(self.entries))]


def choose(estimate_mib: int, learned: LearnedNeed | None, at: int, total_mib: int = MIB_MAX) -> Need:
    """The need of the device at this place of the mask; see the numbered rules above.

    What was learned asks for no more than the empty device has beside the reserve, or it would never start again.
    """
    if learned is None or (at >= len(learned.peaks) and at >= len(learned.floors)):  # 1
        return Need(estimate_mib, NeedSource.ESTIMATE, "nothing was observed yet")
    most = need_fitting(total_mib)
    floor = min(learned.floors[at], most) if at < len(learned.floors) else 0
    peak = min(learned.peaks[at], most) if at < len(learned.peaks) else 0
    if floor >= max(peak, estimate_mib):  # 2
        return Need(floor, NeedSource.LEARNED, "raised after it ran out of memory")
    if peak > estimate_mib:  # 2
        return Need(peak, NeedSource.LEARNED, f"more was observed than the {estimate_mib} MiB of the estimate")
    if learned.runs >= STABLE_RUNS_MIN and peak:  # 3
        why = f"observed in {learned.runs} stable runs, the estimate was {estimate_mib} MiB"
        return Need(max(peak, floor), NeedSource.LEARNED, why)
    return Need(estimate_mib, NeedSource.ESTIMATE, f"{learned.runs} of {STABLE_RUNS_MIN} stable runs observed")  # 4


def _raised(mib: int) -> int:
    """In whole numbers: a tenth more, rounded up."""
    return min(-(-mib * OOM_RAISE_PERCENT // 100), MIB_MAX)


def _lowest(floors: tuple[int, ...], bounds: tuple[int, ...]) -> tuple[int, ...]:
    """Each floor, no higher than its bound, where it has one."""
    return (*map(min, floors, bounds), *floors[len(bounds) :])


def highest(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    """The larger one, device by device."""
    size = max(len(one), len(other))
    padded = [(*each, *(0,) * (size - len(each))) for each in (one, other)]
    return tuple(max(pair) for pair in zip(*padded, strict=True))
