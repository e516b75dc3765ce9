"""Whether a worker's memory fits before it is spawned (ORCH-3003): need against what is free, device by device.

Need is what the model file, its KV cache and its buffers take; a reserve is kept on top of it. Measures nothing.
"""

from supervisor.core.events import DeviceRoom, RoomMeasured

RESERVE_SHARE = 0.10
RESERVE_MIN_MIB = 512


def reserve_mib(need_mib: int) -> int:
    """What is kept free beside the need: a tenth of it, and never less than the minimum."""
    return max(round(need_mib * RESERVE_SHARE), RESERVE_MIN_MIB)


def find_shortage(measured: RoomMeasured) -> str | None:
    """One sentence that says where memory is short, with need and free; None where all fits."""
    for device in measured.devices:
        needed_mib = device.need_mib + reserve_mib(device.need_mib)
        if needed_mib > device.free_mib:
            return f"GPU {device.uuid} has {device.free_mib} MiB free, {_wanted(device)} are needed"
    if measured.host_need_mib > measured.host_free_mib:
        return f"the host has {measured.host_free_mib} MiB free, {measured.host_need_mib} MiB are needed"
    return None


def _wanted(device: DeviceRoom) -> str:
    reserve = reserve_mib(device.need_mib)
    return f"{device.need_mib + reserve} MiB ({device.need_mib} and a reserve of {reserve})"


def describe(measured: RoomMeasured) -> str:
    """What was found, for the status."""
    return ", ".join(f"{device.need_mib} of {device.free_mib} MiB free on {device.uuid}" for device in measured.devices)
