"""How the state of a pool is said: a mark, a word, a colour, half a line. Defined once for every verb. Pure."""

from orchctl.terminal import Screen, Style, one_line
from supervisor.wire.pools import PoolHealth


def pool_mark(pool: PoolHealth, screen: Screen) -> str:
    """A full dot for a pool that takes tasks, an empty one for any other."""
    return screen.signs.on if pool.ready and not pool.draining and not is_ejected(pool) else screen.signs.off


def state_word(pool: PoolHealth) -> str:
    """The lifecycle phase; a drain that is on or done says so instead of ready."""
    if not pool.draining:
        return _trust_word(pool) or one_line(pool.state)
    if pool.ready:
        return "draining" if pool.metrics.slots_busy else "drained"
    return f"{one_line(pool.state)}, drained"


def _trust_word(pool: PoolHealth) -> str:
    """What the breaker of a pool that is ready makes of it; nothing for a closed one."""
    if not pool.ready or pool.breaker is None:
        return ""
    return {"open": "ejected", "half-open": "on probation", "probing": "on probation"}.get(pool.breaker.state, "")


def is_ejected(pool: PoolHealth) -> bool:
    """Whether a pool that is ready takes no task, for its runs keep failing."""
    return _trust_word(pool) == "ejected"


def state_style(pool: PoolHealth) -> Style:
    """Green serves, yellow is on its way or drained, red needs somebody."""
    if is_ejected(pool):
        return Style.BAD
    if pool.ready:
        return Style.WARN if pool.draining or _trust_word(pool) else Style.GOOD
    return Style.BAD if pool.cause else Style.WARN


def standing(pool: PoolHealth) -> str:
    """Where a pool stands, in half a line."""
    busy = f", {pool.metrics.slots_busy} running" if pool.metrics.slots_busy else ""
    cause = f", {pool.cause}" if pool.cause else ""
    return one_line(f"{state_word(pool)}{busy}{cause}")
