"""Row 10: what the daemon costs while nothing happens, with eight Ready pools."""

import time
from collections.abc import Callable

from bench.daemons import Setting, daemon
from bench.effort import Effort
from bench.middles import EngineSpeed, Place
from bench.processes import rss_mb, scheduled_s
from bench.rows import Bound, Row, judge

POOLS = 8
SETTLE_S = 2


def measure_idle(place: Place, effort: Effort, say: Callable[[str], None]) -> Row:
    """Resident memory, and CPU time over a quiet while."""
    say(f"idle, {POOLS} pools")
    with daemon(place, Setting(EngineSpeed(slots=4), pools=POOLS)) as one:
        time.sleep(SETTLE_S)
        before_s, began = scheduled_s(one.pid), time.monotonic()
        time.sleep(effort.idle_s)
        percent = 100 * (scheduled_s(one.pid) - before_s) / (time.monotonic() - began)
        resident_mb = rss_mb(one.pid)
    text = f"{resident_mb:.0f} MB, {percent:.2f} % of a core"
    verdict = judge(Bound(resident_mb, 80, 60), Bound(percent, 1, 0.3))
    figures = {"rss_mb": resident_mb, "cpu_percent": percent}
    return Row(10, f"idle, {POOLS} pools", "<= 80 MB, <= 1 %", "<= 60 MB, <= 0.3 %", text, verdict, figures)
