"""Sees in the looks at the GPUs that the driver, or one GPU's part of it, began anew. Facts only; pure.

No event tells of it for certain. The signs: another driver version, counts of errors since the driver was loaded that
are smaller than they were, a GPU that was lost and is there again, a recovery action that is no longer asked for, a
library and a driver that fit again.
"""

from supervisor.runtime.gpus import GpuTrouble, Inventory

_BETWEEN = frozenset({GpuTrouble.UNINITIALIZED, GpuTrouble.VERSION_MISMATCH, GpuTrouble.DRIVER_NOT_LOADED})
_LOST = frozenset({GpuTrouble.GPU_LOST, GpuTrouble.RESET_REQUIRED})


Reset = tuple[tuple[str, ...], str]
"""GPUs by UUID, and the sign of it."""


class DriverResets:
    """Compares each good look with the one before."""

    def __init__(self) -> None:
        self._before: Inventory | None = None
        self._between: GpuTrouble | None = None
        self._lost: set[str] = set()

    def find(self, now: Inventory) -> Reset | None:
        """The GPUs that were reset between the last good look and this one, and the sign of it; None for none."""
        if now.cause is not None:
            self._between = now.kind if now.kind in _BETWEEN else self._between
            return None
        before, between = self._before, self._between
        self._before, self._between = now, None
        found = None if before is None else self._compare(before, between, now)
        present = {device.uuid for device in now.devices}
        self._lost = (self._lost - present) | {each.uuid for each in now.unusable if each.uuid and each.kind in _LOST}
        return found

    def _compare(self, before: Inventory, between: GpuTrouble | None, now: Inventory) -> Reset | None:
        everyone = tuple(device.uuid for device in now.devices)
        if before.driver_version != now.driver_version:
            return everyone, f"the driver is {now.driver_version} now and was {before.driver_version}"
        if between is not None:
            return everyone, f"the driver is there again after: {between}"
        signs = {uuid: sign for uuid in everyone if (sign := self._sign(uuid, before, now)) is not None}
        if not signs:
            return None
        return tuple(signs), "; ".join(f"GPU {uuid} {sign}" for uuid, sign in signs.items())

    def _sign(self, uuid: str, before: Inventory, now: Inventory) -> str | None:
        if uuid in self._lost:
            return "was lost and is there again"
        old, new = before.samples.get(uuid), now.samples[uuid]
        if old is None:
            return None
        counts = (
            (old.health.ecc_single_volatile, new.health.ecc_single_volatile),
            (old.health.ecc_double_volatile, new.health.ecc_double_volatile),
        )
        if any(was is not None and is_now is not None and is_now < was for was, is_now in counts):
            return "counts its volatile ECC errors from zero again"
        if old.health.recovery_action and new.health.recovery_action == 0:
            return "needs no recovery action any more"
        return None
