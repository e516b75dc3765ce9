"""What is remembered of the GPUs' faults: what was just seen, what waits for more news, what is held against whom.

Bookkeeping with time as an argument: repeats, strikes, holds. What is done about a fault is decided in `gpu_faults`.
"""

from msgspec import Struct, field

from supervisor.core.faults import Fault, GpuAlarm

REPEAT_MS = 1_000
"""NVML and the kernel log tell of one incident both, and NVML may do so twice."""
AFTERMATH_MS = 5_000
"""An XID 45 so close to another fault of its GPU follows from that one."""
PID_WITHIN_MS = 500
"""NVML names no process, the kernel log does: so long is waited for it before all workers of a GPU are restarted."""
HOLD_FIRST_MS = 5_000
HOLD_BLIND_MS = 30_000
"""The first hold of a GPU whose driver does not say when it is well again."""
HOLD_MAX_MS = 600_000
STRIKES_WINDOW_MS = 600_000
APPLICATION_FAULTS_MAX = 3
"""So many of one model on one engine within `STRIKES_WINDOW_MS` open the breaker of the pool."""
SIGHTINGS_MAX = 256

XID_AFTERMATH = 45


class Sighting(Struct, frozen=True):
    """One fault, as it was reported. `instance` is the MIG instance that it happened in."""

    uuid: str
    fault: Fault
    pid: int | None
    at_ms: float
    instance: str | None = None


class Pending(Struct, frozen=True):
    """A fault whose reaction waits for more news until `due_ms`."""

    due_ms: float
    sighting: Sighting


class Hold(Struct):
    """A GPU that is withheld for a fault. `until_ms`: not given back before, whatever the driver says.

    `needs_absence`: only a GPU that was gone and came back is well again; `was_absent` says that it was.
    """

    cause: str
    until_ms: float
    needs_absence: bool = False
    was_absent: bool = False
    is_of_link: bool = False


class FaultBook(Struct):
    """All of it, by UUID where it is about a GPU. `application` counts by model and engine."""

    sightings: list[Sighting] = field(default_factory=list)
    pending: list[Pending] = field(default_factory=list)
    holds: dict[str, Hold] = field(default_factory=dict)
    strikes: dict[str, tuple[float, ...]] = field(default_factory=dict)
    application: dict[tuple[str, str], tuple[float, ...]] = field(default_factory=dict)
    flags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    totals_mib: dict[str, int] = field(default_factory=dict)
    driver_resets: int = 0

    def sight(self, new: Sighting) -> bool:
        """Note a fault; whether it is news. The same one, of the same process as far as known, is none for a second."""
        recent = [old for old in self.sightings if new.at_ms - old.at_ms < AFTERMATH_MS]
        self.sightings = [*recent[-SIGHTINGS_MAX:], new]
        return not any(_is_same(old, new) for old in recent)

    def has_cause(self, aftermath: Sighting, now_ms: float) -> bool:
        """Whether another fault of the GPU came within `AFTERMATH_MS` of it, before or after."""
        return any(
            each.uuid == aftermath.uuid
            and each.fault not in (XID_AFTERMATH, GpuAlarm.ECC_SINGLE_BIT)
            and abs(each.at_ms - aftermath.at_ms) <= AFTERMATH_MS
            for each in self.sightings
            if each.at_ms <= now_ms
        )

    def take_due(self, now_ms: float) -> list[Sighting]:
        """What waited long enough, removed."""
        due = [each.sighting for each in self.pending if each.due_ms <= now_ms]
        self.pending = [each for each in self.pending if each.due_ms > now_ms]
        return due

    def take_pending(self, named: Sighting) -> bool:
        """The process of a fault that waits for its name is known now: take it out. Whether there was one."""
        left = [each for each in self.pending if each.sighting.pid is not None or not _is_same(each.sighting, named)]
        is_found = len(left) < len(self.pending)
        self.pending = left
        return is_found

    def strike(self, uuid: str, now_ms: float) -> int:
        """One more fault that took a GPU out of service; how many of them there were lately, this one included."""
        self.strikes[uuid] = times = _lately(self.strikes.get(uuid, ()), now_ms)
        return len(times)

    def strike_application(self, model: str, engine: str, now_ms: float) -> int:
        """One more fault that a model on an engine may have caused; how many lately, this one included."""
        self.application[model, engine] = times = _lately(self.application.get((model, engine), ()), now_ms)
        return len(times)

    def flag(self, uuid: str, word: str) -> None:
        """Something to know about a GPU that goes on serving."""
        known = self.flags.get(uuid, ())
        if word not in known:
            self.flags[uuid] = (*known, word)


def _is_same(old: Sighting, new: Sighting) -> bool:
    is_one_process = old.pid is None or new.pid is None or old.pid == new.pid
    is_one_fault = (old.uuid, old.fault) == (new.uuid, new.fault)
    return is_one_fault and is_one_process and abs(new.at_ms - old.at_ms) < REPEAT_MS


def _lately(times: tuple[float, ...], now_ms: float) -> tuple[float, ...]:
    return (*(at for at in times if at > now_ms - STRIKES_WINDOW_MS), now_ms)


def hold_ms(strikes: int, *, is_blind: bool) -> float:
    """How long a GPU is withheld at least: the driver needs time to say what is wrong, and repeats wait longer."""
    first = HOLD_BLIND_MS if is_blind else HOLD_FIRST_MS
    return float(min(first << min(strikes - 1, 16), HOLD_MAX_MS))
