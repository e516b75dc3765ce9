"""What the control plane says of one GPU beyond its memory: where it sits, and how it is. Null: not reported."""

from msgspec import Struct


class DevicePlace(Struct, kw_only=True):
    """Where a GPU sits. `cpus` are next to it; `nvlinks` are the bus ids at the other ends of its active links."""

    bus_id: str | None = None
    pcie_gen_max: int | None = None
    pcie_width_max: int | None = None
    numa_node: int | None = None
    cpus: list[int] | None = None
    nvlinks: list[str] | None = None


class DeviceHealth(Struct, kw_only=True):
    """Figures of its state. ECC counts: since the driver was loaded (`volatile`), and of its life (`aggregate`).

    `recovery_action` is what the driver says is needed before the GPU can be used again, "none" where nothing is.
    """

    temperature_c: int | None = None
    power_w: float | None = None
    is_persistent: bool | None = None
    pcie_gen: int | None = None
    pcie_width: int | None = None
    has_ecc: bool | None = None
    ecc_single_volatile: int | None = None
    ecc_double_volatile: int | None = None
    ecc_single_aggregate: int | None = None
    ecc_double_aggregate: int | None = None
    pages_retired_single: int | None = None
    pages_retired_double: int | None = None
    pages_pending: bool | None = None
    rows_remapped_correctable: int | None = None
    rows_remapped_uncorrectable: int | None = None
    rows_pending: bool | None = None
    rows_failed: bool | None = None
    recovery_action: str | None = None
