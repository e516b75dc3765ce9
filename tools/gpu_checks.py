"""The checks of `make gpu-check` that compare: the daemon's look at the GPUs against nvidia-smi. Pure but for pynvml.

A figure that nvidia-smi states must not be null in a `DeviceSample`; those that stand still must be equal.
"""

from collections.abc import Iterator, Sequence

import pynvml

from supervisor.core.conductor import Conductor
from supervisor.core.events import Event
from supervisor.core.faults import RecoveryAction, recovery_of
from supervisor.runtime.device_watch import DeviceWatch
from supervisor.runtime.fault_notes import FaultNotes
from supervisor.runtime.gauges import Gauges
from supervisor.runtime.gpus import Device, DeviceSample, GpuSource, Inventory
from supervisor.runtime.gpus_nvml_events import WANTED
from supervisor.runtime.metrics import Metrics
from tools.gpu_verdicts import Verdict, failed, passed, skipped
from tools.nvidia_smi import SmiGpu, SmiHost

TOTAL_TOLERANCE_MIB = 64
FREE_TOLERANCE_MIB = 256
"""Others may take and give memory between the two looks."""
TEMPERATURE_TOLERANCE_C = 15
FIGURES_MOVING = ("power_w", "pcie_gen", "pcie_width")
"""A link sleeps and power swings: these must be there, and may differ."""
FIGURES_STANDING = ("is_persistent", "has_ecc")
FIGURES_ECC = (
    "ecc_single_volatile",
    "ecc_double_volatile",
    "ecc_single_aggregate",
    "ecc_double_aggregate",
    "rows_remapped_correctable",
    "rows_remapped_uncorrectable",
    "rows_pending",
    "rows_failed",
)
DEVICE_METRICS = ("vram_used_bytes", "vram_free_bytes", "gpu_utilization", "gpu_withheld")
EVENT_NAMES = {
    pynvml.nvmlEventTypeXidCriticalError: "XID",
    pynvml.nvmlEventTypeSingleBitEccError: "single-bit ECC",
    pynvml.nvmlEventTypeDoubleBitEccError: "double-bit ECC",
    pynvml.nvmlEventTypeFatalPoisonError: "poison",
    pynvml.nvmlEventTypeGpuUnavailableError: "GPU unavailable",
    pynvml.nvmlEventTypeGpuRecoveryAction: "recovery action",
}


def compare(found: Inventory, smi: SmiHost) -> Iterator[Verdict]:
    """Everything that two looks at the same GPUs must agree on."""
    yield _inventory(found, smi)
    known = {each.uuid: each for each in smi.gpus}
    for device in whole_gpus(found):
        if device.uuid in known:
            yield from _device(device, found.samples[device.uuid], known[device.uuid])


def whole_gpus(found: Inventory) -> list[Device]:
    """Without MIG instances, which nvidia-smi lists elsewhere."""
    return [device for device in found.devices if device.mig is None]


def _inventory(found: Inventory, smi: SmiHost) -> Verdict:
    ours = [(device.index, device.uuid) for device in whole_gpus(found)]
    theirs = [(each.index, each.uuid) for each in smi.gpus]
    if ours != theirs:
        return failed("inventory", f"NVML lists {ours}, nvidia-smi {theirs}")
    if found.driver_version != smi.driver_version:
        return failed("inventory", f"driver {found.driver_version} by NVML, {smi.driver_version} by nvidia-smi")
    return passed("inventory", f"{len(ours)} GPU, the same order and UUIDs; driver {found.driver_version}")


def _device(device: Device, sample: DeviceSample, smi: SmiGpu) -> Iterator[Verdict]:
    yield _near(f"vram total {device.uuid}", device.vram_total_mib, smi.vram_total_mib, TOTAL_TOLERANCE_MIB)
    yield _near(f"vram free {device.uuid}", sample.vram_free_mib, smi.vram_free_mib, FREE_TOLERANCE_MIB)
    yield _bus(device, smi)
    health = sample.health
    yield _near(f"temperature_c {device.uuid}", health.temperature_c, smi.temperature_c, TEMPERATURE_TOLERANCE_C)
    yield _there(f"utilization_percent {device.uuid}", sample.utilization_percent, smi.utilization_percent)
    for name in FIGURES_MOVING:
        yield _there(f"{name} {device.uuid}", getattr(health, name), getattr(smi, name))
    for name in (*FIGURES_STANDING, *FIGURES_ECC):
        yield _equal(f"{name} {device.uuid}", getattr(health, name), getattr(smi, name))
    yield _recovery(device, sample, smi)


def _bus(device: Device, smi: SmiGpu) -> Verdict:
    ours, theirs = (device.place.bus_id or "").lower(), (smi.bus_id or "").lower()
    return _equal(f"bus_id {device.uuid}", ours or None, theirs or None)


def _near(name: str, ours: float | None, theirs: float | None, tolerance: float) -> Verdict:
    if ours is None or theirs is None:
        return _there(name, ours, theirs)
    said = f"{ours:g} by NVML, {theirs:g} by nvidia-smi"
    return passed(name, said) if abs(ours - theirs) <= tolerance else failed(name, f"{said}: over {tolerance:g} apart")


def _there(name: str, ours: object, theirs: object) -> Verdict:
    if ours is not None:
        return passed(name, str(ours))
    if theirs is not None:
        return failed(name, f"null, but nvidia-smi says {theirs}")
    return skipped(name, "neither NVML nor nvidia-smi knows it")


def _equal(name: str, ours: object, theirs: object) -> Verdict:
    if ours is None or theirs is None or ours == theirs:
        return _there(name, ours, theirs)
    return failed(name, f"{ours} by NVML, {theirs} by nvidia-smi")


def _recovery(device: Device, sample: DeviceSample, smi: SmiGpu) -> Verdict:
    """NVML field 230 tells when a withheld GPU is well again; nvidia-smi has names of its own for the actions."""
    name, value = f"recovery_action {device.uuid}", sample.health.recovery_action
    if value is None or smi.recovery_action is None:
        return _there(name, value, smi.recovery_action)
    action = recovery_of(value)
    is_same = (action is RecoveryAction.NONE) is (smi.recovery_action == "none")
    said = f"field 230 says {action}, nvidia-smi {smi.recovery_action}"
    return passed(name, said) if is_same else failed(name, said)


def subscription(found: Inventory, heard: Sequence[str]) -> Iterator[Verdict]:
    """Whether each GPU supports the events that the daemon wants, and is among those `heard` (UUIDs).

    Calls NVML, which must be up.
    """
    for device in whole_gpus(found):
        name = f"events {device.uuid}"
        try:
            supported = pynvml.nvmlDeviceGetSupportedEventTypes(pynvml.nvmlDeviceGetHandleByUUID(device.uuid))
        except pynvml.NVMLError as error:
            yield skipped(name, f"this GPU tells of no events: {error}")
            continue
        said = f"supported {supported:#x}, wanted {WANTED:#x}; not supported: {_names(WANTED & ~supported)}"
        if not supported & WANTED:
            yield skipped(name, said)
        elif device.uuid not in heard:
            yield failed(name, f"the listener did not register it; {said}")
        elif not supported & pynvml.nvmlEventTypeXidCriticalError:
            yield failed(name, f"it does not tell of XIDs; {said}")
        else:
            yield passed(name, f"registered {_names(WANTED & supported)}; {said}")


def _names(types: int) -> str:
    return ", ".join(name for bit, name in EVENT_NAMES.items() if types & bit) or "none"


def metrics_page(found: Inventory, source: GpuSource) -> Iterator[Verdict]:
    """Whether one look puts every metric of a device on the page, for every GPU that reports it."""
    core = Conductor(())
    metrics = Metrics(lambda: core.state, {})

    def post(event: Event) -> None:
        core.handle(event, 0)

    DeviceWatch(source, post, Gauges(metrics, {}), FaultNotes(metrics.registry)).note(found)
    page = metrics.page().decode()
    for name in DEVICE_METRICS:
        wanted = [uuid for uuid, sample in found.samples.items() if _reports(name, sample)]
        missing = [uuid for uuid in wanted if not any(_is_of(line, name, uuid) for line in page.splitlines())]
        if missing:
            yield failed(f"metric {name}", f"missing on the page for {', '.join(missing)}")
        elif not wanted:
            yield skipped(f"metric {name}", "no GPU reports it")
        else:
            yield passed(f"metric {name}", f"{len(wanted)} on the page")


def _reports(name: str, sample: DeviceSample) -> bool:
    return name != "gpu_utilization" or sample.utilization_percent is not None


def _is_of(line: str, name: str, uuid: str) -> bool:
    return line.startswith(f"{name}{{") and f'device="{uuid}"' in line
