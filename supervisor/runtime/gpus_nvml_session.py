"""NVML's life in this process: initialised when needed, shut down after trouble, shared by looks and the listener.

NVML's state is the process's: nobody may wait for events in it while it is shut down. So there is one session, and who
listens says so (`listening`) and leaves when `is_current` says that the session is over. Every method blocks.
"""

import contextlib
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace

import pynvml

from supervisor.runtime.gpus import Device, DeviceSample, GpuTrouble, Inventory, Place, UnusableDevice
from supervisor.runtime.gpus_nvml_codes import OF_ALL_DEVICES, OF_ONE_DEVICE, cause_of, failed, kind_of
from supervisor.runtime.gpus_nvml_figures import optional, read_device, read_instances, read_place
from supervisor.runtime.gpus_nvml_library import NvmlLibrary

log = logging.getLogger(__name__)

LEAVE_WITHIN_S = 0.6
"""A listener looks up more often than that; one that hangs in NVML is not waited for."""
RENEW_EVERY = 5
"""Looks between two new starts of NVML while the same GPU stays unusable: a start can take seconds for each GPU."""
_SHUTDOWNS_MAX = 16

Reading = tuple[Device, DeviceSample]


class NvmlSession:
    """NVML, up or down. `wants_renewal`: it is started anew before the next look."""

    def __init__(self) -> None:
        self._state = threading.Condition()
        self._is_up = False
        self._generation = 0
        self._listeners = 0
        self._looks = 0
        self._library = NvmlLibrary()
        self._places: dict[str, Place] = {}
        self._uuids: dict[int, str] = {}
        self._last: dict[str, list[Reading]] = {}
        self._troubled: tuple[UnusableDevice, ...] = ()
        self._same = 0
        self.wants_renewal = False

    # Looks ------------------------------------------------------------------------------------------------------

    def look(self, is_late: threading.Event) -> Inventory:
        """Read everything. A look that was given up in the meantime leaves NVML to the one that came after it."""
        with self._state:
            self._looks += 1
        try:
            return self._look(is_late)
        finally:
            with self._state:
                self._looks -= 1

    def _look(self, is_late: threading.Event) -> Inventory:
        try:
            if self.wants_renewal:
                self.shut_down()
            if not self._is_up:
                pynvml.nvmlInit()
                self._begin()
            found = self._enumerate()
        except pynvml.NVMLError as error:
            found = failed(error)
        except UnicodeDecodeError:
            found = Inventory(kind=GpuTrouble.UNKNOWN, cause="NVML gave a GPU a name or uuid that is not text")
        if not is_late.is_set() and self._is_stale(found):
            self.shut_down()  # only a fresh start enumerates the GPUs again
            if found.kind is GpuTrouble.VERSION_MISMATCH and self._is_alone() and self._library.take_new():
                log.info("another NVML library is loaded: the driver was upgraded")
        return found

    def _is_alone(self) -> bool:
        """Whether this look is all there is: one that hangs would come back to another library with old handles."""
        with self._state:
            return self._looks == 1 and not self._listeners

    def _is_stale(self, found: Inventory) -> bool:
        """Whether only a new start can bring better news: at each new trouble, and now and then while it stays."""
        self._same = self._same + 1 if found.troubled == self._troubled else 0
        self._troubled = found.troubled
        if found.cause is not None or not found.devices:
            return True
        return bool(found.troubled) and self._same % RENEW_EVERY == 0

    def _begin(self) -> None:
        with self._state:
            self._is_up = True
            self._generation += 1
            self._places.clear()
            self._state.notify_all()

    def _enumerate(self) -> Inventory:
        """Read every GPU. One that denies an answer spoils the look only where no other gives one."""
        found: list[Reading] = []
        unusable: list[UnusableDevice] = []
        denied: list[tuple[UnusableDevice, pynvml.NVMLError]] = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                found += self._read(index)
            except pynvml.NVMLError as error:
                kind = kind_of(error)
                if kind in OF_ALL_DEVICES:
                    raise
                each = UnusableDevice(index, kind, cause_of(index, error), self._uuids.get(index))
                if kind in OF_ONE_DEVICE:
                    unusable.append(each)
                else:
                    denied.append((each, error))
        if denied and not found:
            raise denied[0][1]
        return self._report(found, unusable, [each for each, _ in denied])

    def _report(self, found: list[Reading], unusable: list[UnusableDevice], denied: list[UnusableDevice]) -> Inventory:
        """One lost answer says nothing about a GPU that gave figures before: they stand, marked as old."""
        present = {device.uuid for device, _ in found}
        known = {each: self._last.get(each.uuid or "", []) for each in denied if each.uuid not in present}
        unread = tuple(each for each, last in known.items() if last)
        silent = [each for each in denied if each not in unread]
        old = [
            (replace(device, index=each.index), replace(sample, processes=None))
            for each in unread
            for device, sample in known[each]
        ]
        readings = sorted([*found, *old], key=lambda reading: reading[0].index)
        self._remember(readings)
        return Inventory(
            tuple(device for device, _ in readings),
            tuple(_without_uuid(each) if each.uuid in present else each for each in [*unusable, *silent]),
            {device.uuid: sample for device, sample in readings},
            optional(pynvml.nvmlSystemGetDriverVersion),
            unread=unread,
        )

    def _remember(self, readings: list[Reading]) -> None:
        self._last = {}
        for device, sample in readings:
            whole = device.uuid if device.mig is None else device.mig.parent
            self._last.setdefault(whole, []).append((device, sample))
            if device.mig is None:
                self._uuids[device.index] = device.uuid

    def _read(self, index: int) -> list[Reading]:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        uuid = pynvml.nvmlDeviceGetUUID(handle)
        place = self._places.get(uuid) or read_place(handle)
        self._places[uuid] = place  # read above, not here: a look that comes back late may clear it meanwhile
        self._uuids[index] = uuid
        device, sample = read_device(handle, index, place)
        instances = list(read_instances(handle, device)) if device.is_divided else []
        return [(device, sample), *instances]

    def shut_down(self) -> None:
        """End NVML for certain: a late look may have counted one more reference on it."""
        with self._state:
            self._is_up = self.wants_renewal = False
            self._state.notify_all()
            self._state.wait_for(lambda: not self._listeners, LEAVE_WITHIN_S)
        with contextlib.suppress(pynvml.NVMLError):
            for _ in range(_SHUTDOWNS_MAX):
                pynvml.nvmlShutdown()

    # The listener -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def listening(self, after: int, within_s: float) -> Iterator[int | None]:
        """Wait for a session that began after generation `after`; gives its number, None where none did in time."""
        with self._state:
            is_up = self._state.wait_for(lambda: self._is_up and self._generation > after, within_s)
            generation = self._generation if is_up else None
            self._listeners += is_up
        try:
            yield generation
        finally:
            with self._state:
                self._listeners -= is_up
                self._state.notify_all()

    def is_current(self, generation: int) -> bool:
        """Whether that session still stands."""
        return self._is_up and self._generation == generation


def _without_uuid(device: UnusableDevice) -> UnusableDevice:
    """Another GPU has moved to its place, so that nobody knows which one this is."""
    return UnusableDevice(device.index, device.kind, device.cause)
