"""Room is measured by figures of now: a GPU that denies them has none to give, whatever it said before."""

import pytest

from supervisor.core.memory_need import DeviceNeed, PoolNeed
from supervisor.runtime.gpus import Device, DeviceSample, GpuTrouble, Inventory, UnusableDevice
from supervisor.runtime.gpus_simulated import SimulatedGpus
from supervisor.runtime.room import RoomError, measure

NEED = PoolNeed("r", (DeviceNeed(1_000, 0, 0, 0),), 0)
DENIED = UnusableDevice(0, GpuTrouble.NO_PERMISSION, "GPU 0: may not be asked", "GPU-0")


class OneGpu(SimulatedGpus):
    """A GPU that gave its figures, now or once."""

    def __init__(self, *unread: UnusableDevice) -> None:
        super().__init__(())
        self._unread = unread

    async def inventory(self) -> Inventory:
        """Always the same figures."""
        device, sample = Device("GPU-0", 0, "H100", 8_192, (9, 0)), DeviceSample(0, 8_192, None)
        return Inventory((device,), samples={"GPU-0": sample}, unread=self._unread)


async def test_figures_of_now_are_room() -> None:
    room = await measure(("p", 1), NEED, ("GPU-0",), OneGpu(), tuple)

    assert [each.free_mib for each in room.devices] == [8_192]


async def test_old_figures_are_no_room_and_the_cause_is_said() -> None:
    with pytest.raises(RoomError, match="GPU 0: may not be asked"):
        await measure(("p", 1), NEED, ("GPU-0",), OneGpu(DENIED), tuple)
