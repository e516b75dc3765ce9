"""What a worker needs of memory, device by device, and what stays free beside it. Arithmetic; measures nothing.

All sizes are MiB, rounded up. An estimate comes from the head of the model file and the command line; what was observed
of a worker may stand in its place.
"""

from enum import StrEnum

from msgspec import Struct

RESERVE_SHARE = 0.10
RESERVE_MIN_MIB = 512


class NeedSource(StrEnum):
    """Where a need comes from. These words are shown to operators."""

    ESTIMATE = "estimate"
    LEARNED = "learned"


class DeviceNeed(Struct, frozen=True):
    """One device's share: weights, KV cache and recurrent state, compute buffers, and what CUDA itself takes.

    `total_share` is for engines that take a part of the whole device whatever they load: 0 for those that do not.
    """

    weights_mib: int
    kv_mib: int
    buffers_mib: int
    overhead_mib: int
    total_share: float = 0.0

    @property
    def sum_mib(self) -> int:
        """All of it."""
        return self.weights_mib + self.kv_mib + self.buffers_mib + self.overhead_mib

    def on(self, total_mib: int) -> int:
        """What is taken of a device of this size."""
        return max(self.sum_mib, round(total_mib * self.total_share))


class PoolNeed(Struct, frozen=True):
    """What one worker needs. `recipe` names all that decides it: what is learned is kept under that name.

    `devices` is in mask order. `cells_per_slot` is the context of one slot in tokens that the KV cache is sized for.
    """

    recipe: str
    devices: tuple[DeviceNeed, ...]
    host_mib: int
    cells_per_slot: int = 0
    slots: int = 1


def reserve_mib(need_mib: int) -> int:
    """What is kept free beside the need: a tenth of it, and never less than the minimum."""
    return max(round(need_mib * RESERVE_SHARE), RESERVE_MIN_MIB)


def need_fitting(room_mib: int) -> int:
    """The largest need that fits this room together with its reserve; 0 where none does."""
    return max(min(int(room_mib / (1 + RESERVE_SHARE)), room_mib - RESERVE_MIN_MIB), 0)


def ceil_mib(size_bytes: float) -> int:
    """Bytes in whole MiB, rounded up."""
    return -int(-size_bytes // (1 << 20))
