"""The columns of the table of devices: what stands in each, and which go first on a narrow screen. Pure."""

from collections.abc import Sequence

from orchctl.table import Column
from orchctl.terminal import Style, one_line
from supervisor.wire.devices import DeviceHealth, DevicePlace
from supervisor.wire.pools import DeviceView


def device_columns(devices: Sequence[DeviceView], *, is_wide: bool) -> list[Column]:
    """One row for each GPU and MIG instance, in the order of the reply."""

    def bad(row: int) -> tuple[Style, ...]:
        return (Style.BAD,) if devices[row].withheld else ()

    columns = [
        Column("GPU", [str(device.index) for device in devices], is_number=True, paint=bad),
        Column("NAME", [one_line(device.name) for device in devices], rank=2, may_shrink=True),
        Column("VRAM", [_vram(device) for device in devices]),
        Column("USE", [_unit(device.utilization_percent, "%") for device in devices], rank=1, is_number=True),
        Column("POOLS", [one_line(", ".join(device.pools)) or "-" for device in devices], rank=3, may_shrink=True),
    ]
    return [*columns, *_wide_columns(devices)] if is_wide else columns


def _wide_columns(devices: Sequence[DeviceView]) -> list[Column]:
    healths = [device.health or DeviceHealth() for device in devices]
    places = [device.place or DevicePlace() for device in devices]
    return [
        Column("RECOVERY", [_recovery(health) for health in healths], rank=4, may_shrink=True),
        Column("FLAGS", [one_line(", ".join(_flags(device))) or "-" for device in devices], rank=5, may_shrink=True),
        Column("ECC 1B/2B", [_ecc(health) for health in healths], rank=6),
        Column("TEMP", [_unit(health.temperature_c, "C") for health in healths], rank=7, is_number=True),
        Column("POWER", [_power(health) for health in healths], rank=8, is_number=True),
        Column("NUMA", [_unit(place.numa_node) for place in places], rank=9, is_number=True),
        Column("LINK", [_link(*pair) for pair in zip(healths, places, strict=True)], rank=10),
        Column("UUID", [one_line(device.uuid) for device in devices], rank=11),
    ]


def _vram(device: DeviceView) -> str:
    used = "?" if device.vram_used_mib is None else f"{device.vram_used_mib / 1_024:.1f}"
    return f"{used} of {device.vram_total_mib / 1_024:.1f} GiB"


def _unit(value: int | None, unit: str = "") -> str:
    return "-" if value is None else f"{value} {unit}".rstrip()


def _power(health: DeviceHealth) -> str:
    return "-" if health.power_w is None else f"{health.power_w:.0f} W"


def _recovery(health: DeviceHealth) -> str:
    """What the driver asks for. That it asks for nothing is another thing than that it does not say."""
    return one_line(health.recovery_action or "-")


def _ecc(health: DeviceHealth) -> str:
    """Errors since the driver was loaded, of one bit (corrected) and of two."""
    if health.has_ecc is False:
        return "off"
    counts = (health.ecc_single_volatile, health.ecc_double_volatile)
    return "-" if counts == (None, None) else "/".join("?" if count is None else str(count) for count in counts)


def _flags(device: DeviceView) -> list[str]:
    """What is to know of it that keeps it from nothing."""
    health = device.health or DeviceHealth()
    said = {
        "stale figures": device.stale,
        "divided": device.is_divided,
        "rows pending": health.rows_pending,
        "rows failed": health.rows_failed,
        "pages pending": health.pages_pending,
    }
    return [*device.flags, *(word for word, is_so in said.items() if is_so)]


def _link(health: DeviceHealth, place: DevicePlace) -> str:
    """The PCIe link as it is and as it could be, and how many NVLinks are up."""
    parts = []
    if health.pcie_gen is not None and health.pcie_width is not None:
        parts.append(f"gen{health.pcie_gen} x{health.pcie_width}")
        if place.pcie_gen_max is not None and place.pcie_width_max is not None:
            parts.append(f"of gen{place.pcie_gen_max} x{place.pcie_width_max}")
    if place.nvlinks:
        parts.append(f"+{len(place.nvlinks)} NVLink")
    return " ".join(parts) or "-"
