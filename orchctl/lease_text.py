"""The table of leases. Pure."""

from collections.abc import Sequence

from orchctl.spans import spoken
from orchctl.table import Column, lay_out
from orchctl.terminal import Screen, one_line
from supervisor.wire.leases import LeasePage


def lease_lines(page: LeasePage, screen: Screen) -> Sequence[str]:
    """One line for each lease; a sentence where there is none."""
    if not page.leases:
        return ["no GPU is leased"]
    leases = page.leases
    columns = [
        Column("LEASE", [lease.lease_id for lease in leases]),
        Column("STATE", [lease.state for lease in leases]),
        Column("GPU", [",".join(lease.devices) for lease in leases], may_shrink=True),
        Column("OWNER", [one_line(lease.owner) for lease in leases], rank=2),
        Column("LEFT", [spoken(lease.expires_in_ms) for lease in leases]),
        Column("POOLS", [",".join(lease.pools) or "-" for lease in leases], rank=3, may_shrink=True),
        Column("PID", [str(lease.holder_pid or "-") for lease in leases], rank=4, is_number=True),
        Column("FOR", [one_line(lease.purpose) or "-" for lease in leases], rank=5, may_shrink=True),
    ]
    return lay_out(columns, screen)
