"""What operators asked for and a restart must not forget: plain values, written down by the runtime.

Whoever owns a wish has a field here. The core says when it changed (`State.is_intent_stale`); the runtime stores it
whole, and hands it back at the next start. Times are monotonic milliseconds of the daemon that wrote it; the runtime
says by how much to shift them.
"""

from msgspec import Struct, field

from supervisor.core.revisions import CanaryPlan, Revision, RevisionNote


class LeaseNote(Struct, frozen=True, kw_only=True):
    """A lease of GPUs, as it is asked for and kept. `devices` are UUIDs, `owner` says who, `purpose` what for.

    `holder_pid` and `holder_ticks` (start in clock ticks since boot) name the process whose end gives it back; None
    where only its time does. `is_held`: its GPUs were seen free.
    """

    lease_id: str
    devices: tuple[str, ...]
    owner: str
    purpose: str
    expires_ms: float
    drain_to: str | None = None
    holder_pid: int | None = None
    holder_ticks: int = 0
    is_held: bool = False


class CanaryIntent(Struct, frozen=True, kw_only=True):
    """A canary that takes its share, so that the next daemon goes on with it."""

    revision: Revision
    plan: CanaryPlan


class PoolIntent(Struct, frozen=True, kw_only=True):
    """Which revision of a pool serves, and what it was before; `previous` is the one that a rollback goes to.

    `next_revision` is the number of the next one: no number is given twice. `canary` takes its share beside it.
    """

    current: Revision
    next_revision: int
    previous: Revision | None = None
    is_rolled_back: bool = False
    history: tuple[RevisionNote, ...] = ()
    canary: CanaryIntent | None = None


class Intent(Struct, frozen=True, kw_only=True):
    """All wishes. `drained` are pools that an operator took out of service, with the deadline of the drain."""

    drained: dict[str, float] = field(default_factory=dict)
    leases: tuple[LeaseNote, ...] = ()
    pools: dict[str, PoolIntent] = field(default_factory=dict)
