"""The ledger of GPUs: which are there, and which are withheld from workers though they are there.

A GPU is withheld for a fault (until the driver says that it is well again) or for a lease (until it is given back).
Decides nothing about workers: `workers` asks here whether a mask can be had.
"""

from enum import StrEnum

from msgspec import Struct, field

from supervisor.core.events import DeviceSeen


class Withheld(StrEnum):
    """Why a GPU that is there may not be used."""

    FAULT = "fault"
    LEASE = "lease"


class DeviceLedger(Struct):
    """What is known of the host's GPUs. `withheld` holds one sentence for each reason, by UUID."""

    seen: tuple[DeviceSeen, ...] = ()
    is_known: bool = False
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

    def cause_of(self, uuid: str) -> str | None:
        """Why a GPU is withheld, a fault before a lease; None where it is not."""
        reasons = self.withheld.get(uuid, {})
        return next((reasons[why] for why in Withheld if why in reasons), None)
