"""The ledger of GPUs: which are there, and which are withheld from workers though they are there.

A GPU is withheld for a fault (until the driver says that it is well again), for a fault of its links to other GPUs, or
for a lease (until it is given back). What befalls a GPU befalls its MIG instances.
Decides nothing about workers: `workers` asks here whether a mask can be had.
"""

from enum import StrEnum

from msgspec import Struct, field

from supervisor.core.events import DeviceSeen


class Withheld(StrEnum):
    """Why a GPU that is there may not be used."""

    FAULT = "fault"
    LINK = "link"
    LEASE = "lease"


class DeviceLedger(Struct):
    """What is known of the host's GPUs.

    `withheld` holds one sentence for each reason, by UUID; `lost` says why a GPU that was there is not.
    """

    seen: tuple[DeviceSeen, ...] = ()
    is_known: bool = False
    lost: dict[str, str] = field(default_factory=dict)
    withheld: dict[str, dict[Withheld, str]] = field(default_factory=dict)

    def withhold(self, uuid: str, why: Withheld, cause: str) -> None:
        """Keep a GPU from workers; another reason may hold it too."""
        self.withheld.setdefault(uuid, {})[why] = cause

    def release(self, uuid: str, why: Withheld) -> None:
        """One reason is over; nothing happens where it did not hold."""
        reasons = self.withheld.get(uuid, {})
        reasons.pop(why, None)
        if not reasons:
            self.withheld.pop(uuid, None)

    def cause_of(self, uuid: str, *, is_spanning: bool = True) -> str | None:
        """Why a GPU, or the one that it is an instance of, is withheld, a fault before a lease; None where it is not.

        A fault of links is none for a worker that does not span GPUs.
        """
        for name in (uuid, self.parent_of(uuid)):
            reasons = self.withheld.get(name or "", {})
            for why in Withheld:
                if why in reasons and (is_spanning or why is not Withheld.LINK):
                    return reasons[why]
        return None

    def is_withheld(self, uuid: str, why: Withheld) -> bool:
        """Whether a GPU, or the one that it is an instance of, is withheld for this reason."""
        return any(why in self.withheld.get(name or "", {}) for name in (uuid, self.parent_of(uuid)))

    def parent_of(self, uuid: str) -> str | None:
        """The GPU that a MIG instance is a part of; None for a whole GPU."""
        return next((each.parent for each in self.seen if each.uuid == uuid), None)

    def with_instances(self, uuid: str) -> frozenset[str]:
        """A GPU and the MIG instances that it is divided into."""
        return frozenset({uuid, *(each.uuid for each in self.seen if each.parent == uuid)})
