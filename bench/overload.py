"""Row 7: a full queue under far more submits than it can take: refusals, accepts meanwhile, and memory."""

from collections.abc import Callable

from bench.daemons import Setting, daemon
from bench.effort import Effort
from bench.load import InvalidRunError, LoadPlan, Mode
from bench.middles import EngineSpeed, Place
from bench.processes import rss_mb
from bench.rows import Bound, Row, judge

CLIENTS = 64
QUEUE_MAX = 256
TOKENS = 8
SPEED = EngineSpeed(tick_ms=20, slots=32)
"""32 slots of tasks of 160 ms: 200 tasks a second, and the clients ask for more than ten times as many."""
OVERLOAD_MIN = 10
WARMUP_S = 3.0


def measure_overload(place: Place, effort: Effort, seed: int, say: Callable[[str], None]) -> Row:
    """Clients in a closed loop that never heed a hint: what an attack or a broken client does."""
    say(f"429s, {CLIENTS} clients against a queue of {QUEUE_MAX}")
    with daemon(place, Setting(SPEED, queue_max=QUEUE_MAX, grace_ms=-1)) as one:

        def submit(seconds: float, number: int) -> LoadPlan:
            return LoadPlan(
                mode=Mode.ACCEPT,
                port=one.port,
                clients=CLIENTS,
                tokens=TOKENS,
                has_fixed_length=True,
                seed=seed + number,
                seconds=seconds,
                warmup_s=0,
                watch_pid=one.pid,
            )

        place.run(submit(WARMUP_S, 0))
        before_mb = rss_mb(one.pid)
        load = place.run(submit(effort.accept_s, 1))
        growth_mb = rss_mb(one.pid) - before_mb
    overload = load.started / max(load.accepted, 1)
    if overload < OVERLOAD_MIN:
        raise InvalidRunError(f"{load.started} submits for {load.accepted} accepts are no tenfold overload")
    return _row(load.refused / load.seconds, load.accept_ms.p99, growth_mb, overload, load.accepted_per_s)


def _row(refused_per_s: float, p99_ms: float, growth_mb: float, overload: float, accepted_per_s: float) -> Row:
    text = f"{refused_per_s:.0f}/s at {overload:.0f} x, accepted p99 {p99_ms:.1f} ms, RSS {growth_mb:+.1f} MB"
    bounds = (Bound(refused_per_s, 4_000, 15_000, is_floor=True), Bound(p99_ms, 50, 50))
    figures = {
        "refused_per_s": refused_per_s,
        "accepted_per_s": accepted_per_s,
        "accepted_p99_ms": p99_ms,
        "overload": overload,
        "rss_growth_mb": growth_mb,
    }
    must = ">= 4k/s, accepted p99 <= 50 ms"
    return Row(7, "429s under 10 x overload", must, ">= 15k/s", text, judge(*bounds), figures)
