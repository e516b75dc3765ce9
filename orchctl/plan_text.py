"""A memory plan as lines for a person: the GPUs, then the pools in start order, then why. Decides nothing."""

from collections.abc import Sequence

from orchctl.spans import spoken
from orchctl.table import Column, lay_out
from orchctl.terminal import Screen, Style
from supervisor.wire.plan import MemoryPlan, PlanPool, PlanShare

_STYLES = {
    "runs": (Style.GOOD,),
    "fits": (Style.GOOD,),
    "waits": (Style.WARN,),
    "never": (Style.BAD,),
    "unknown": (Style.WARN,),
}


def plan_page(plan: MemoryPlan, screen: Screen) -> Sequence[str]:
    """The page."""
    lines = []
    if plan.simulated is not None:
        lines.append(screen.paint(f"simulated GPUs: {plan.simulated}", Style.WARN))
    if plan.gpu_cause is not None:
        lines.append(screen.paint(screen.clean(plan.gpu_cause), Style.BAD))
    if plan.devices:
        lines += [*_device_table(plan, screen), ""]
    lines += _pool_table(plan, screen)
    lines += ["", *_reasons(plan, screen)]
    return lines


def _device_table(plan: MemoryPlan, screen: Screen) -> list[str]:
    devices = plan.devices
    return lay_out(
        [
            Column("GPU", [str(each.index) for each in devices]),
            Column("NAME", [screen.clean(each.name) for each in devices], rank=2, may_shrink=True),
            Column("TOTAL", [_mib(each.total_mib) for each in devices], is_number=True),
            Column("FREE", [_mib(each.free_mib) for each in devices], is_number=True),
            Column("CLAIMED", [_mib(each.claimed_mib) for each in devices], rank=1, is_number=True),
        ],
        screen,
    )


def _pool_table(plan: MemoryPlan, screen: Screen) -> list[str]:
    """One line for each pool and GPU; what is of the pool stands on its first line."""
    names = {each.uuid: str(each.index) for each in plan.devices}
    rows: list[tuple[PlanPool, PlanShare | None, bool]] = []
    for pool in plan.pools:
        rows += [(pool, share, at == 0) for at, share in enumerate(pool.shares)] or [(pool, None, True)]
    if not rows:
        return ["no pools"]

    def figure(pick: str) -> list[str]:
        return ["" if share is None else _mib(getattr(share, pick)) for _, share, _ in rows]

    loads = [spoken(round(pool.load_ms)) if first and pool.load_ms is not None else "" for pool, _, first in rows]
    return lay_out(
        [
            Column("POOL", [pool.pool_id if first else "" for pool, _, first in rows], may_shrink=True),
            Column(
                "VERDICT",
                [pool.verdict if first else "" for pool, _, first in rows],
                paint=lambda row: _STYLES.get(rows[row][0].verdict, ()),
            ),
            Column("GPU", ["" if share is None else names.get(share.device, share.device) for _, share, _ in rows]),
            Column("NEED", figure("need_mib"), is_number=True),
            Column("RESERVE", figure("reserve_mib"), rank=2, is_number=True),
            Column("FREE", figure("free_before_mib"), rank=1, is_number=True),
            Column("WEIGHTS", figure("weights_mib"), rank=5, is_number=True),
            Column("KV", figure("kv_mib"), rank=5, is_number=True),
            Column("BUFFERS", figure("buffers_mib"), rank=6, is_number=True),
            Column("FROM", ["" if share is None else share.source for _, share, _ in rows], rank=3),
            Column("LOAD", loads, rank=4, is_number=True),
        ],
        screen,
    )


def _reasons(plan: MemoryPlan, screen: Screen) -> list[str]:
    lines = []
    for pool in plan.pools:
        if pool.cause is not None:
            lines.append(f"{pool.pool_id}: {screen.clean(pool.cause)}")
        elif pool.shares:
            lines.append(screen.paint(f"{pool.pool_id}: {pool.shares[0].source}, {pool.shares[0].why}", Style.DIM))
    return lines


def _mib(mib: int) -> str:
    return f"{mib} MiB"
