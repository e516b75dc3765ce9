"""Rows 6, 8 and the second half of 11: durable accepts, the memory of waiting tasks, and a restart with a queue."""

from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.daemons import Daemon, Setting, daemon, start_daemon
from bench.effort import Effort
from bench.load import InvalidRunError, Load, LoadPlan, Mode
from bench.middles import EngineSpeed, Place
from bench.processes import rss_mb, stop
from bench.rows import Bound, Row, judge

CLIENTS = 64
SETTLE_TASKS = 2_000
QUEUE_MAX = 1_000_000
LONG_TOKENS = 3_000
SLOW = EngineSpeed(tick_ms=200, slots=1)
"""One slot whose task lasts ten minutes: everything after the first task waits."""

_WAITING = Setting(SLOW, queue_max=QUEUE_MAX, grace_ms=-1)


def measure_accepts(place: Place, effort: Effort, seed: int, say: Callable[[str], None]) -> list[Row]:
    """Rows 6 and 8, on one daemon whose queue only grows."""
    say(f"durable accepts, {CLIENTS} clients")
    with daemon(place, _WAITING) as one:
        _accept(place, one, seed, total=SETTLE_TASKS)
        load = _accept(place, one, seed + 1, seconds=effort.accept_s)
        row = _accept_row(load)
        missing = max(1, effort.waiting)
        say(f"memory of {missing} waiting tasks")
        before_mb = rss_mb(one.pid)
        waited = one.waiting()
        grown = _accept(place, one, seed + 2, total=missing)
        return [row, _memory_row(one.waiting() - waited, rss_mb(one.pid) - before_mb, grown.prompt_bytes / 1e6)]


def _accept(place: Place, one: Daemon, seed: int, *, total: int = 0, seconds: float = 600) -> Load:
    plan = LoadPlan(
        mode=Mode.ACCEPT,
        port=one.port,
        clients=CLIENTS,
        tokens=LONG_TOKENS,
        has_fixed_length=True,
        seed=seed,
        seconds=seconds,
        warmup_s=0 if total else 1,
        total=total,
        watch_pid=one.pid,
    )
    load = place.run(plan)
    if load.refused:
        raise InvalidRunError(f"{load.refused} of {load.started} tasks were refused")
    return load


def _accept_row(load: Load) -> Row:
    rate, times = load.accepted_per_s, load.accept_ms
    text = f"{rate:.0f}/s, p50 {times.p50:.1f}, p99 {times.p99:.1f} ms"
    verdict = judge(Bound(rate, 4_000, 15_000, is_floor=True), Bound(times.p99, 40, 15))
    figures = {"accepted_per_s": rate, "p50_ms": times.p50, "p99_ms": times.p99, "cpu_percent": load.cpu_percent}
    what = f"durable accepts (full), {CLIENTS} clients"
    return Row(6, what, ">= 4k/s, p99 <= 40 ms", ">= 15k/s, p99 <= 15 ms", text, verdict, figures)


def _memory_row(tasks: int, growth_mb: float, prompts_mb: float) -> Row:
    """The table's figure is for 100,000 tasks; fewer are scaled up to that, and the text says so."""
    beyond_mb = (growth_mb - prompts_mb) * 100_000 / tasks
    scaled = "" if tasks >= 99_000 else f", scaled from {tasks}"
    text = f"{beyond_mb:.0f} MB beyond {prompts_mb:.0f} MB of prompts ({growth_mb * 1e6 / tasks:.0f} B each{scaled})"
    figures = {"tasks": float(tasks), "growth_mb": growth_mb, "prompts_mb": prompts_mb, "beyond_mb": beyond_mb}
    verdict = judge(Bound(beyond_mb, 120, 75))
    return Row(8, "RSS growth, 100,000 waiting tasks", "<= 120 MB", "<= 75 MB", text, verdict, figures)


def measure_starts(place: Place, effort: Effort, seed: int, say: Callable[[str], None]) -> Row:
    """Row 11: from exec to the first HTTP answer, on an empty state directory and on one with waiting tasks."""
    say(f"starts, empty and with {effort.restart_waiting} waiting tasks")
    empty_s = []
    for _ in range(effort.starts):
        with daemon(place, _WAITING) as one:
            empty_s.append(one.listening_s)
    with TemporaryDirectory(dir=place.folder, ignore_cleanup_errors=True) as folder:
        full_s = _start_with_waiting(place, effort, seed, Path(folder))
    empty, full = median(empty_s), median(full_s)
    text = f"{empty:.2f} s; {full:.2f} s"
    figures = {"empty_s": empty, "waiting_s": full, "waiting": float(effort.restart_waiting)}
    verdict = judge(Bound(empty, 1, 0.5), Bound(full, 2, 1))
    return Row(
        11, "start to listening; with 10,000 waiting", "<= 1 s; <= 2 s", "<= 0.5 s; <= 1 s", text, verdict, figures
    )


def _start_with_waiting(place: Place, effort: Effort, seed: int, folder: Path) -> list[float]:
    """Fill the queue, kill everything, start again; the queue must be there, or the figure is worth nothing."""
    with daemon(place, _WAITING, folder) as one:
        _accept(place, one, seed, total=effort.restart_waiting)
        one.kill()
    took_s = []
    for _ in range(effort.starts):
        one = start_daemon(place, _WAITING, folder)
        try:
            if (found := one.waiting()) < effort.restart_waiting - SLOW.slots:
                raise InvalidRunError(f"{found} of {effort.restart_waiting} accepted tasks are there after the restart")
            took_s.append(one.listening_s)
        finally:
            one.kill()
            stop(one.process)
    return took_s
