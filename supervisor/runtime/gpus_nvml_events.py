"""Listens to the events of all GPUs in a thread of its own, as long as an NVML session stands.

Only what a GPU supports is registered. Each wait is short, so that the session can end; a wait that hangs in NVML costs
this thread alone, and the looks and the kernel log go on telling of faults.
"""

import ctypes
import logging
import threading
from collections.abc import Callable

import pynvml

from supervisor.core.faults import XID_DOUBLE_BIT, XID_RECOVERY_CHANGED, Fault, GpuAlarm
from supervisor.runtime.gpu_events import EventSource, GpuEvent
from supervisor.runtime.gpus_nvml_codes import code_of
from supervisor.runtime.gpus_nvml_figures import optional
from supervisor.runtime.gpus_nvml_session import NvmlSession

log = logging.getLogger(__name__)

WAIT_MS = 250
PAUSE_S = 1.0
"""After a failure, before it listens again."""
SESSION_WITHIN_S = 0.5
_NO_INSTANCE = 0xFFFF_FFFF
_XID = pynvml.nvmlEventTypeXidCriticalError
_FAULTS: dict[int, Fault] = {
    pynvml.nvmlEventTypeSingleBitEccError: GpuAlarm.ECC_SINGLE_BIT,
    pynvml.nvmlEventTypeDoubleBitEccError: XID_DOUBLE_BIT,
    pynvml.nvmlEventTypeFatalPoisonError: GpuAlarm.POISON,
    pynvml.nvmlEventTypeGpuUnavailableError: GpuAlarm.UNAVAILABLE,
    pynvml.nvmlEventTypeGpuRecoveryAction: XID_RECOVERY_CHANGED,
}
WANTED = _XID | sum(_FAULTS)


class NvmlListener:
    """One thread. `tell` is called in it."""

    def __init__(self, session: NvmlSession, tell: Callable[[GpuEvent], None]) -> None:
        self._session = session
        self._tell = tell
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nvml-events", daemon=True)

    def start(self) -> None:
        """Begin; nothing is heard before the first look."""
        self._thread.start()

    def close(self) -> None:
        """Let it end by itself, within `WAIT_MS`."""
        self._closing.set()

    def _run(self) -> None:
        heard = 0
        while not self._closing.is_set():
            with self._session.listening(heard, SESSION_WITHIN_S) as generation:
                if generation is None:
                    continue
                is_over = self._listen(generation)
            if is_over:
                heard = generation
            else:
                self._closing.wait(PAUSE_S)

    def _listen(self, generation: int) -> bool:
        """Hear one session to its end. Whether it is over, or is to be tried again."""
        try:
            return self._hear(generation)
        except pynvml.NVMLError as error:
            if code_of(error) == pynvml.NVML_ERROR_GPU_IS_LOST:
                self._say(GpuEvent(EventSource.NVML, None, text="a GPU of the event set is lost"))
            elif code_of(error) == pynvml.NVML_ERROR_FUNCTION_NOT_FOUND:
                log.info("this driver has no events", extra={"cause": str(error)})
                return True
            return False

    def _hear(self, generation: int) -> bool:
        events = pynvml.nvmlEventSetCreate()
        try:
            names = self._register(events)
            while names and self._goes_on(generation):
                try:
                    self._note(pynvml.nvmlEventSetWait(events, WAIT_MS), names)
                except pynvml.NVMLError as error:
                    if code_of(error) != pynvml.NVML_ERROR_TIMEOUT:
                        raise
        finally:
            optional(pynvml.nvmlEventSetFree, events)
        return True

    def _goes_on(self, generation: int) -> bool:
        return not self._closing.is_set() and self._session.is_current(generation)

    def _register(self, events: object) -> dict[int | None, str]:
        """The UUID of every GPU that tells of something, by its handle."""
        names: dict[int | None, str] = {}
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                types = WANTED & pynvml.nvmlDeviceGetSupportedEventTypes(handle)
                if types:
                    pynvml.nvmlDeviceRegisterEvents(handle, types, events)
                    names[_address(handle)] = pynvml.nvmlDeviceGetUUID(handle)
            except (pynvml.NVMLError, UnicodeDecodeError) as error:
                log.info("a GPU tells of no events", extra={"index": index, "cause": str(error)})
        log.info("GPU events are heard", extra={"devices": sorted(names.values())})
        return names

    def _note(self, data: pynvml.c_nvmlEventData_t, names: dict[int | None, str]) -> None:
        uuid = names.get(_address(data.device))
        fault = int(data.eventData) if data.eventType == _XID else _FAULTS.get(int(data.eventType))
        if uuid is None or fault is None:
            return
        numbers = (int(data.gpuInstanceId), int(data.computeInstanceId))
        instance = None if _NO_INSTANCE in numbers else numbers
        self._say(GpuEvent(EventSource.NVML, fault, uuid=uuid, instance=instance))

    def _say(self, event: GpuEvent) -> None:
        try:
            self._tell(event)
        except RuntimeError:  # the event loop is closed: nobody listens any more
            self._closing.set()


def _address(handle: object) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value  # type: ignore[arg-type]  # pynvml has no types
