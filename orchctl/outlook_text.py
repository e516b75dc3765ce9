"""What a change would do, as lines for a person: each pool and GPU, old and new side by side, then why. Pure."""

from collections.abc import Sequence

from orchctl.spans import spoken
from orchctl.table import Column, lay_out
from orchctl.terminal import Screen, Style, one_line
from supervisor.wire.outlook import ChangeOutlook, OutlookShare, PoolOutlook

_STYLES = {
    "stays": (Style.GOOD,),
    "starts": (Style.GOOD,),
    "side-by-side": (Style.GOOD,),
    "stop-start": (Style.WARN,),
    "waits": (Style.WARN,),
    "returns": (Style.BAD,),
    "fails": (Style.BAD,),
    "never": (Style.BAD,),
}
_MEANINGS = {
    "stays": "the worker stays, and has the new values at once",
    "starts": "it starts at once",
    "waits": "it waits for memory",
    "stops": "it ends what it has, then its worker is stopped",
    "side-by-side": "the new worker starts beside the old one, which serves until then",
    "stop-start": "both do not fit: the old worker ends first, and tasks wait until the new one is ready",
    "returns": "the old worker would be stopped for nothing, and come back",
    "fails": "the new worker cannot start now, the old one goes on",
    "never": "it cannot start like this, what serves goes on",
}


def outlook_page(outlook: ChangeOutlook, screen: Screen) -> Sequence[str]:
    """The page."""
    lines = [f"warning: {one_line(warning)}" for warning in outlook.warnings]
    if outlook.simulated is not None:
        lines.append(screen.paint(f"simulated GPUs: {one_line(outlook.simulated)}", Style.WARN))
    if outlook.refused is not None:
        return [*lines, screen.paint(f"refused: {one_line(outlook.refused)}", Style.BAD)]
    if not outlook.pools:
        return [*lines, "no pool is touched" if outlook.changes else "nothing differs"]
    lines += [*_table(outlook, screen), ""]
    for pool in outlook.pools:
        lines += _meaning(pool)
    return lines


def _table(outlook: ChangeOutlook, screen: Screen) -> list[str]:
    """One line for each pool and GPU; what is of the pool stands on its first line."""
    rows: list[tuple[PoolOutlook, OutlookShare | None, bool]] = []
    for pool in outlook.pools:
        rows += [(pool, share, at == 0) for at, share in enumerate(pool.shares)] or [(pool, None, True)]

    def figure(pick: str) -> list[str]:
        return ["" if share is None else f"{getattr(share, pick)} MiB" for _, share, _ in rows]

    def of_pool(text: str, is_first: bool) -> str:  # noqa: FBT001  (one row)
        return one_line(text) if is_first else ""

    loads = ["" if pool.load_ms is None or not first else spoken(round(pool.load_ms)) for pool, _, first in rows]
    return lay_out(
        [
            Column("POOL", [of_pool(pool.pool_id, first) for pool, _, first in rows], may_shrink=True),
            Column("CHANGE", [of_pool(pool.effect, first) for pool, _, first in rows], rank=2),
            Column(
                "WAY",
                [of_pool(pool.way, first) for pool, _, first in rows],
                paint=lambda row: _STYLES.get(rows[row][0].way, ()),
            ),
            Column("GPU", ["" if share is None else one_line(share.device) for _, share, _ in rows], rank=5),
            Column("OLD", figure("old_mib"), rank=1, is_number=True),
            Column("NEW", figure("need_mib"), is_number=True),
            Column("RESERVE", figure("reserve_mib"), rank=3, is_number=True),
            Column("FREE", figure("free_mib"), rank=1, is_number=True),
            Column("CLAIMED", figure("claimed_mib"), rank=4, is_number=True),
            Column("FROM", ["" if share is None else one_line(share.source) for _, share, _ in rows], rank=5),
            Column("LOAD", loads, rank=4, is_number=True),
        ],
        screen,
    )


def _meaning(pool: PoolOutlook) -> list[str]:
    name = one_line(pool.pool_id)
    lines = [f"{name}: {_MEANINGS.get(pool.way, one_line(pool.way))}"]
    if pool.from_model != pool.to_model and pool.to_model is not None and pool.from_model is not None:
        lines.append(f"  from model {one_line(pool.from_model)} to {one_line(pool.to_model)}")
    if pool.keys:
        lines.append(f"  {one_line(', '.join(pool.keys))}")
    if pool.cause is not None:
        lines.append(f"  {one_line(pool.cause)}")
    leavers = ", ".join(f"{each.pool_id} revision {each.revision} ({each.role})" for each in pool.gives_way)
    if leavers:
        lines.append(f"  gives way: {one_line(leavers)}")
    if pool.tasks_wait:
        how_long = (
            "for a time that is not known yet" if pool.load_ms is None else f"about {spoken(round(pool.load_ms))}"
        )
        lines.append(f"  tasks of the pool wait {how_long}, after what runs has ended")
    return lines
