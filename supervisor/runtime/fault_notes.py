"""What the log and the metrics say of faults: one line and one step each for an incident, with what and why.

Memory errors, resets of the driver and every other trouble are counted apart (ORCH-3053). Decides nothing.
"""

import logging

from prometheus_client import CollectorRegistry, Counter

from supervisor.core.effects import NoteFault, NoteRecovery
from supervisor.core.faults import GpuAlarm, meaning_of, name_of

log = logging.getLogger("orchctl")

_BASE = ("engine", "engine_version")
_NONE = "none"


class FaultNotes:
    """Counters and lines. Labels are words of ours: no text of a driver is ever one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, (*_BASE, *labels), registry=registry)

        self._faults = counter("gpu_faults", "Faults of GPUs and of the driver, by kind.", "kind")
        self._xids = counter("gpu_xids", "XIDs that were reported.", "xid")
        self._ecc = counter("ecc_events", "Memory errors of GPUs.", "kind")
        self._resets = counter("driver_reset_events", "Resets of the driver, or of one GPU's part of it.")
        self._resets.labels(_NONE, _NONE)

    def note_fault(self, effect: NoteFault) -> None:
        """A GPU reported a fault; what is done about it stands beside it."""
        self._faults.labels(_NONE, _NONE, effect.kind).inc()
        if not isinstance(effect.fault, GpuAlarm):
            self._xids.labels(_NONE, _NONE, str(effect.fault)).inc()
        if effect.ecc is not None:
            self._ecc.labels(_NONE, _NONE, effect.ecc).inc()
        fields = {
            "device": effect.uuid,
            "fault": name_of(effect.fault),
            "source": effect.source,
            "engine_pid": effect.pid,
            "text": effect.text,
            "done": meaning_of(effect.fault).reaction,
        }
        log.warning("GPU fault", extra=fields)

    def note_recovery(self, effect: NoteRecovery) -> None:
        """A GPU that was withheld is given back."""
        log.info("GPU recovered", extra={"device": effect.uuid, "cause": effect.cause})

    def note_trouble(self, kind: str, cause: str) -> None:
        """A GPU, or all of them, cannot be read any more; `kind` is a `GpuTrouble`."""
        self._faults.labels(_NONE, _NONE, kind).inc()
        log.warning("GPU trouble", extra={"cause": cause, "kind": kind})

    def note_mended(self, kind: str) -> None:
        """All GPUs can be read again."""
        log.info("GPUs can be read again", extra={"kind": kind})

    def note_driver_reset(self, cause: str) -> None:
        """The driver began anew; counted apart from memory errors."""
        self._resets.labels(_NONE, _NONE).inc()
        log.warning("driver reset", extra={"cause": cause, "done": "NVML is started anew, idle workers are probed"})
