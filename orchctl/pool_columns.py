"""The columns of the table of pools: what stands in each, and which go first on a narrow screen. Pure."""

from orchctl.pool_words import pool_mark, state_style, state_word
from orchctl.spans import spoken
from orchctl.table import Column
from orchctl.terminal import Screen, Style, one_line
from supervisor.wire.pools import HostStatus, PoolHealth

DIGEST_SHOWN = 12


def pool_columns(status: HostStatus, screen: Screen, *, is_wide: bool) -> list[Column]:
    """One row for each pool, in the order of the config."""
    pools = status.pools
    indices = {device.uuid: str(device.index) for device in status.devices}

    def style(row: int) -> tuple[Style, ...]:
        return (state_style(pools[row]),)

    columns = [
        Column("", [pool_mark(pool, screen) for pool in pools], paint=style),
        Column("POOL", [one_line(pool.pool_id) for pool in pools], may_shrink=True),
        Column("STATE", [state_word(pool) for pool in pools], paint=style),
        Column("MODEL", [_model(pool, is_wide=is_wide) for pool in pools], rank=4, may_shrink=not is_wide),
        Column("ENGINE", [_engine(pool) for pool in pools], rank=5, may_shrink=not is_wide),
        Column("DEVICE", [_devices(pool, indices) for pool in pools], rank=6, may_shrink=True),
        Column("SLOTS", [_slots(pool) for pool in pools], rank=1, is_number=True),
        Column("QUEUE", [str(pool.metrics.waiting) for pool in pools], rank=0, is_number=True),
        Column("TOK/S", [f"{pool.metrics.tokens_per_s:.1f}" for pool in pools], rank=2, is_number=True),
        Column("RESTARTS", [str(pool.metrics.restarts_total) for pool in pools], rank=3, is_number=True),
    ]
    return columns + _wide_columns(pools) if is_wide else columns


def _wide_columns(pools: list[PoolHealth]) -> list[Column]:
    return [
        Column("CTX", [str(pool.ctx) for pool in pools], rank=7, is_number=True),
        Column("FIRST TOKEN P95", [_or_dash(pool.metrics.first_token_p95_ms) for pool in pools], rank=8),
        Column("QUEUE P95", [_or_dash(pool.metrics.queue_time_p95_ms) for pool in pools], rank=9),
        Column("TOKENS", [str(pool.metrics.tokens_out_total) for pool in pools], rank=10, is_number=True),
        Column("IN STATE", [spoken(pool.since_ms) for pool in pools], rank=11),
        Column("PID", [str(pool.pid or "-") for pool in pools], rank=12, is_number=True),
    ]


def _model(pool: PoolHealth, *, is_wide: bool) -> str:
    model = one_line(pool.model_ref)
    is_long = model.startswith("sha256:") and not is_wide
    return model[: len("sha256:") + DIGEST_SHOWN] if is_long else model


def _engine(pool: PoolHealth) -> str:
    return one_line(f"{pool.engine} {pool.engine_version or ''}".strip())


def _devices(pool: PoolHealth, indices: dict[str, str]) -> str:
    """The numbers of the devices that the host still has, the UUIDs of those that are gone."""
    return one_line(",".join(indices.get(uuid, uuid) for uuid in pool.devices)) or "-"


def _slots(pool: PoolHealth) -> str:
    return f"{pool.metrics.slots_busy}/{pool.metrics.slots_total}" if pool.metrics.slots_total else "-"


def _or_dash(value_ms: float | None) -> str:
    return "-" if value_ms is None else spoken(value_ms)
