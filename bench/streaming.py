"""Rows 1 to 5: tokens through the middle process, paced and at flood, and the first token at low load."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.daemons import orchctl
from bench.effort import Effort
from bench.load import Load, LoadPlan, Mode
from bench.middles import EngineSpeed, Place, direct, find_nginx, nginx
from bench.rounds import Opener, Series, interleave
from bench.rows import Bound, Figures, Row, Verdict, judge

TICK_MS = 20
PACED_STREAMS = 256
PACED_TOKENS = 300
FLOOD_STREAMS = 64
FLOOD_TOKENS = 500
LOW_LOAD_CLIENTS = 8
LOW_LOAD_TOKENS = 8
THINK_MS = 20


@dataclass(frozen=True, slots=True)
class Streaming:
    """What was measured: for each number of paced streams the systems' series, and the flood and low-load series."""

    paced: Mapping[int, Mapping[str, Series]]
    flood: Mapping[str, Series]
    low: Mapping[str, Series]


def measure_streaming(place: Place, effort: Effort, seed: int, say: Callable[[str], None]) -> Streaming:
    """All streaming runs, systems interleaved."""
    systems: list[Opener] = [direct, *([nginx] if find_nginx() else []), orchctl]
    paced = {}
    for streams in (*effort.sweep, PACED_STREAMS):
        say(f"paced, {streams} streams, a token each {TICK_MS} ms")
        rounds = effort.rounds if streams == PACED_STREAMS else effort.sweep_rounds
        paced[streams] = interleave(place, systems, EngineSpeed(TICK_MS), _paced(streams, effort, seed), rounds)
        _say_missed_ticks(paced[streams], say)
    say(f"flood, {FLOOD_STREAMS} streams")
    flood = interleave(place, systems, EngineSpeed(0), _flood(effort, seed), effort.rounds)
    say(f"first token, {LOW_LOAD_CLIENTS} clients")
    low = interleave(place, systems, EngineSpeed(TICK_MS), _low(effort, seed), effort.rounds)
    return Streaming(paced, flood, low)


def _say_missed_ticks(measured: Mapping[str, Series], say: Callable[[str], None]) -> None:
    """An engine that was too late says that the machine was busy with something else: do not believe the p99."""
    for series in measured.values():
        if series.ticks_missed:
            say(f"the engine behind {series.name} missed {series.ticks_missed} ticks: this machine is busy")


def _paced(streams: int, effort: Effort, seed: int) -> LoadPlan:
    return LoadPlan(
        mode=Mode.DIRECT,
        port=0,
        clients=streams,
        tokens=PACED_TOKENS,
        seed=seed,
        seconds=effort.paced_s,
        warmup_s=effort.warmup_s,
        tick_ms=TICK_MS,
        is_cut=effort.is_cut,
    )


def _flood(effort: Effort, seed: int) -> LoadPlan:
    return LoadPlan(
        mode=Mode.DIRECT,
        port=0,
        clients=FLOOD_STREAMS,
        tokens=FLOOD_TOKENS,
        seed=seed,
        seconds=effort.flood_s,
        warmup_s=1,
    )


def _low(effort: Effort, seed: int) -> LoadPlan:
    return LoadPlan(
        mode=Mode.DIRECT,
        port=0,
        clients=LOW_LOAD_CLIENTS,
        tokens=LOW_LOAD_TOKENS,
        seed=seed,
        seconds=effort.first_token_s,
        warmup_s=1,
        tick_ms=TICK_MS,
        think_ms=THINK_MS,
    )


def streaming_rows(measured: Streaming) -> list[Row]:
    """Rows 1 to 5."""
    paced = measured.paced[PACED_STREAMS]
    return [
        _cost(paced),
        _one_core(paced["orchctl"]),
        _flooded(measured.flood),
        _first_token(measured.low),
        _gaps(paced),
    ]


def _us(load: Load) -> float:
    return load.us_per_token


def _cost(paced: Mapping[str, Series]) -> Row:
    must, goal = "<= 3.0 x nginx", "<= 2.0 x nginx"
    what = f"us/token paced, {PACED_STREAMS} streams"
    own = paced["orchctl"].middle(_us)
    figures: Figures = {"orchctl_us": own}
    if "nginx" not in paced:
        return Row(1, what, must, goal, f"{own:.1f} us; no nginx to compare", Verdict.SKIPPED, figures)
    base = paced["nginx"].middle(_us)
    figures |= {"nginx_us": base, "ratio": own / base}
    text = f"{own:.1f} us, nginx {base:.1f}: {own / base:.2f} x"
    return Row(1, what, must, goal, text, judge(Bound(own / base, 3.0, 2.0)), figures)


def _one_core(own: Series) -> Row:
    percent = own.middle(lambda load: load.cpu_percent)
    rate = own.middle(lambda load: load.tokens_per_s)
    text = f"{percent:.0f} % CPU at {rate / 1000:.1f}k tokens/s, none lost"
    what = "12.8k tokens/s, 256 streams, one core"
    bounds = (Bound(percent, 95, 65), Bound(rate, 12_000, 12_000, is_floor=True))
    return Row(2, what, "<= 95 % CPU", "<= 65 %", text, judge(*bounds), {"cpu_percent": percent, "tokens_per_s": rate})


def _flooded(flood: Mapping[str, Series]) -> Row:
    rates = {name: series.middle(lambda load: load.tokens_per_s) for name, series in flood.items()}
    first_p99 = flood["orchctl"].middle(lambda load: load.first_token_ms.p99)
    own, base = rates["orchctl"], rates.get("nginx")
    bounds = [Bound(own, 60_000, 100_000, is_floor=True), Bound(first_p99, float("inf"), 100)]
    percent = flood["orchctl"].middle(lambda load: load.cpu_percent)
    text = f"{own / 1000:.0f}k tokens/s, {percent:.0f} % CPU, first p99 {first_p99:.0f} ms"
    text += f"; bare engine {rates['direct'] / 1000:.0f}k"
    if base is not None:
        bounds.append(Bound(own / base, 0.5, 0.9, is_floor=True))
        text += f", nginx {base / 1000:.0f}k: {own / base:.2f} x"
    must, goal = ">= 0.5 x nginx, >= 60k/s", ">= 0.9 x nginx, >= 100k/s, first p99 <= 100 ms"
    figures: Figures = {f"{name}_tokens_per_s": rate for name, rate in rates.items()} | {
        "first_token_p99_ms": first_p99,
        "cpu_percent": percent,
    }
    return Row(3, "flood, 64 streams, one core", must, goal, text, judge(*bounds), figures)


def _first_token(low: Mapping[str, Series]) -> Row:
    p50, p99 = (
        low["orchctl"].middle(pick) - low["direct"].middle(pick)
        for pick in (lambda load: load.first_token_ms.p50, lambda load: load.first_token_ms.p99)
    )
    task_us = low["orchctl"].middle(lambda load: load.watched_cpu_s * 1e6 / max(1, load.streams))
    text = f"p50 +{p50:.2f} ms, p99 +{p99:.2f} ms; {task_us:.0f} us CPU for a whole task of {LOW_LOAD_TOKENS} tokens"
    verdict = judge(Bound(p50, 3, 2), Bound(p99, 8, 5))
    what = "first token over the bare engine, 8 clients"
    return Row(
        4,
        what,
        "p50 <= 3, p99 <= 8 ms",
        "p50 <= 2, p99 <= 5 ms",
        text,
        verdict,
        {"p50_ms": p50, "p99_ms": p99, "task_us": task_us},
    )


def _gaps(paced: Mapping[str, Series]) -> Row:
    p99 = {name: series.middle(lambda load: load.gap_beyond_tick_ms.p99) for name, series in paced.items()}
    text = f"{p99['orchctl']:.1f} ms (bare engine {p99['direct']:.1f})"
    what = "inter-token p99 beyond the 20 ms tick, 256 streams"
    verdict = judge(Bound(p99["orchctl"], 30, 10))
    return Row(5, what, "<= 30 ms", "<= 10 ms", text, verdict, {f"{name}_p99_ms": value for name, value in p99.items()})
