"""One lease of GPUs, and how far it has come. What follows from it is decided in `leases`."""

from enum import StrEnum

from msgspec import Struct

from supervisor.core.intent import LeaseNote


class LeasePhase(StrEnum):
    """How far a lease has come. These words are shown to operators."""

    DRAINING = "draining"
    STOPPING = "stopping"
    VERIFYING = "verifying"
    HELD = "held"


class Lease(Struct):
    """What was asked for, and how far it has come.

    `pools` are keys of the workers that give way; None until the inventory says which they are.
    """

    note: LeaseNote
    phase: LeasePhase = LeasePhase.DRAINING
    drain_deadline_ms: float = 0.0
    pools: tuple[str, ...] | None = None
