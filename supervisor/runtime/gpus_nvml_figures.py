"""The figures of one GPU or MIG instance, read through NVML. Every function blocks.

Memory must be had; any other figure that a GPU, an old driver or a missing right denies is None, never a failure. Only
a GPU that is lost or needs a reset fails its reading as a whole.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynvml

from supervisor.runtime.gpus import Device, DeviceSample, GpuProcess, Health, MigPart, Place
from supervisor.runtime.gpus_nvml_codes import code_of

MIB = 1 << 20
MILLIWATTS = 1_000
_CPU_WORDS = 16
"""1,024 CPUs, in words of 64."""
_SYSFS_PCI = Path("/sys/bus/pci/devices")
_FAILS_ALL = frozenset(
    {pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED, pynvml.NVML_ERROR_UNINITIALIZED}
)
_FIELDS = {
    "ecc_single_volatile": pynvml.NVML_FI_DEV_ECC_SBE_VOL_TOTAL,
    "ecc_double_volatile": pynvml.NVML_FI_DEV_ECC_DBE_VOL_TOTAL,
    "ecc_single_aggregate": pynvml.NVML_FI_DEV_ECC_SBE_AGG_TOTAL,
    "ecc_double_aggregate": pynvml.NVML_FI_DEV_ECC_DBE_AGG_TOTAL,
    "pages_retired_single": pynvml.NVML_FI_DEV_RETIRED_SBE,
    "pages_retired_double": pynvml.NVML_FI_DEV_RETIRED_DBE,
    "pages_pending": pynvml.NVML_FI_DEV_RETIRED_PENDING,
    "rows_remapped_correctable": pynvml.NVML_FI_DEV_REMAPPED_COR,
    "rows_remapped_uncorrectable": pynvml.NVML_FI_DEV_REMAPPED_UNC,
    "rows_pending": pynvml.NVML_FI_DEV_REMAPPED_PENDING,
    "rows_failed": pynvml.NVML_FI_DEV_REMAPPED_FAILURE,
    "recovery_action": pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
}
_FLAGS = frozenset({"pages_pending", "rows_pending", "rows_failed"})
_WIDE_TYPES = frozenset({pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG, pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG})


def optional(read: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401  (pynvml has no types)
    """A figure that may be denied; None then."""
    try:
        return read(*arguments)
    except pynvml.NVMLError as error:
        if code_of(error) in _FAILS_ALL:
            raise
        return None


def read_place(handle: object) -> Place:
    """Where the GPU sits: what does not change while the driver is loaded."""
    pci = optional(pynvml.nvmlDeviceGetPciInfo, handle)
    bus_id = None if pci is None else _text(pci.busId)
    return Place(
        bus_id=bus_id,
        pcie_gen_max=optional(pynvml.nvmlDeviceGetMaxPcieLinkGeneration, handle),
        pcie_width_max=optional(pynvml.nvmlDeviceGetMaxPcieLinkWidth, handle),
        numa_node=_numa_node(handle, bus_id),
        cpus=_cpus(handle),
        nvlinks=_nvlinks(handle),
    )


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _numa_node(handle: object, bus_id: str | None) -> int | None:
    """NVML says it of some platforms only; the kernel knows it of every PCI device."""
    node = optional(pynvml.nvmlDeviceGetNumaNodeId, handle)
    if node is None and bus_id is not None:
        domain, _, rest = bus_id.lower().partition(":")
        try:
            node = int((_SYSFS_PCI / f"{domain[-4:]}:{rest}" / "numa_node").read_text(encoding="ascii"))
        except (OSError, ValueError):
            node = None
    return None if node is None or node < 0 else int(node)


def _cpus(handle: object) -> tuple[int, ...] | None:
    words = optional(pynvml.nvmlDeviceGetCpuAffinity, handle, _CPU_WORDS)
    if words is None:
        return None
    return tuple(64 * n + bit for n, word in enumerate(words) for bit in range(64) if word >> bit & 1)


def _nvlinks(handle: object) -> tuple[str, ...] | None:
    """Asked link by link, until the GPU says that it has no such link."""
    ends: list[str] = []
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        is_active = optional(pynvml.nvmlDeviceGetNvLinkState, handle, link)
        if is_active is None:
            return tuple(ends) if link else None
        remote = optional(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, link) if is_active else None
        if remote is not None:
            ends.append(_text(remote.busId))
    return tuple(ends)


def read_device(handle: object, index: int, place: Place) -> tuple[Device, DeviceSample]:
    """A whole GPU and its figures of this moment. Raises NVMLError where its memory cannot be had."""
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    mode = optional(pynvml.nvmlDeviceGetMigMode, handle)
    device = Device(
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        index=index,
        name=pynvml.nvmlDeviceGetName(handle),
        vram_total_mib=memory.total // MIB,
        compute_capability=optional(pynvml.nvmlDeviceGetCudaComputeCapability, handle),
        place=place,
        is_divided=mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE,
    )
    return device, _sample(handle, memory)


def _sample(handle: object, memory: Any) -> DeviceSample:  # noqa: ANN401  (pynvml has no types)
    utilization = optional(pynvml.nvmlDeviceGetUtilizationRates, handle)
    return DeviceSample(
        memory.used // MIB,
        memory.free // MIB,
        None if utilization is None else int(utilization.gpu),
        _health(handle),
        _processes(handle),
    )


def _health(handle: object) -> Health:
    power_mw = optional(pynvml.nvmlDeviceGetPowerUsage, handle)
    persistence = optional(pynvml.nvmlDeviceGetPersistenceMode, handle)
    ecc = optional(pynvml.nvmlDeviceGetEccMode, handle)
    return Health(
        temperature_c=optional(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        power_w=None if power_mw is None else power_mw / MILLIWATTS,
        is_persistent=None if persistence is None else bool(persistence),
        pcie_gen=optional(pynvml.nvmlDeviceGetCurrPcieLinkGeneration, handle),
        pcie_width=optional(pynvml.nvmlDeviceGetCurrPcieLinkWidth, handle),
        has_ecc=None if ecc is None else bool(ecc[0]),
        **_fields(handle),
    )


def _fields(handle: object) -> dict[str, Any]:
    """Many figures in one call, each with a return code of its own."""
    values = optional(pynvml.nvmlDeviceGetFieldValues, handle, list(_FIELDS.values()))
    if values is None:
        return {}
    found = {name: _number(value) for name, value in zip(_FIELDS, values, strict=True)}
    return {name: bool(value) if name in _FLAGS and value is not None else value for name, value in found.items()}


def _number(value: Any) -> int | None:  # noqa: ANN401  (pynvml has no types)
    if value.nvmlReturn != pynvml.NVML_SUCCESS:
        return None
    return int(value.value.ullVal if value.valueType in _WIDE_TYPES else value.value.uiVal)


def _processes(handle: object) -> tuple[GpuProcess, ...] | None:
    found = optional(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
    if found is None:
        return None
    return tuple(
        GpuProcess(each.pid, None if each.usedGpuMemory is None else each.usedGpuMemory // MIB) for each in found
    )


def read_instances(handle: object, parent: Device) -> Iterator[tuple[Device, DeviceSample]]:
    """The MIG instances of a GPU. One that vanishes meanwhile is left out."""
    for number in range(optional(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        instance = optional(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
        memory = None if instance is None else optional(pynvml.nvmlDeviceGetMemoryInfo, instance)
        uuid = None if instance is None else optional(pynvml.nvmlDeviceGetUUID, instance)
        if memory is None or uuid is None:
            continue
        part = MigPart(
            parent=parent.uuid,
            gpu_instance=optional(pynvml.nvmlDeviceGetGpuInstanceId, instance),
            compute_instance=optional(pynvml.nvmlDeviceGetComputeInstanceId, instance),
        )
        device = Device(
            uuid=uuid,
            index=parent.index,
            name=f"{parent.name} MIG {memory.total // MIB} MiB",
            vram_total_mib=memory.total // MIB,
            compute_capability=parent.compute_capability,
            place=parent.place,
            mig=part,
        )
        utilization = optional(pynvml.nvmlDeviceGetUtilizationRates, instance)
        percent = None if utilization is None else int(utilization.gpu)
        yield device, DeviceSample(memory.used // MIB, memory.free // MIB, percent, processes=_processes(instance))
