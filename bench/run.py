"""`python -m bench.run`: measures the rows of the table of goals, prints them, and keeps JSON and plots.

Systems are interleaved in one run, for only ratios of the same run carry over to another machine. What cannot be
measured here is said aloud. Exit status 1 where a "must" was missed or a part gave no result.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import msgspec

from bench.accepting import measure_accepts, measure_starts
from bench.core_cost import measure_core
from bench.effort import FULL, QUICK, Effort
from bench.idling import measure_idle
from bench.load import InvalidRunError
from bench.machine import machine_facts
from bench.middles import Place, find_nginx
from bench.native import BENCH_DIR, BUILD_DIR, build_tools
from bench.overload import measure_overload
from bench.plots import COST, LATENCY, has_plots, plot_streams
from bench.processes import plan_cpus
from bench.rounds import Series
from bench.rows import Row, Verdict, render
from bench.streaming import Streaming, measure_streaming, streaming_rows

RESULTS_DIR = BENCH_DIR / "results"
STREAMING = frozenset(range(1, 6))
ACCEPTING = frozenset({6, 8})
ALL = STREAMING | ACCEPTING | {7, 9, 10, 11}
LEFT_OUT = "rows 12, 13 and 14 are not measured here; sglang-router, vllm-router and haproxy are not compared"


class Report:
    """What a run has found so far."""

    def __init__(self, stem: Path) -> None:
        self._stem = stem
        self.rows: list[Row] = []
        self.streaming: Streaming | None = None

    def stream(self, measured: Streaming) -> list[Row]:
        """Keep the streaming runs as they are, and give their rows."""
        self.streaming = measured
        return streaming_rows(measured)

    def write(self, effort: Effort, seed: int, began: float) -> Path:
        """Everything as JSON. Gives the path."""
        path = self._stem.with_suffix(".json")
        document = {
            "seed": seed,
            "took_s": round(time.monotonic() - began, 1),
            "effort": asdict(effort),
            "machine": machine_facts(),
            "rows": [row.as_json() for row in sorted(self.rows, key=lambda row: row.number)],
            "streaming": None if self.streaming is None else _plain(self.streaming),
        }
        path.write_text(json.dumps(document, indent=1) + "\n")
        return path

    def plot(self) -> list[Path]:
        """The pictures of the streaming rows, where they were measured."""
        if self.streaming is None or not has_plots():
            return []
        paced = self.streaming.paced
        names = {"cost": (COST, "What a relayed token costs"), "latency": (LATENCY, "How late a token is")}
        return [
            plot_streams(paced, panels, title, self._stem.with_name(f"{self._stem.name}-{name}.png"))
            for name, (panels, title) in names.items()
        ]


def _plain(streaming: Streaming) -> dict[str, object]:
    return {
        "paced": {str(count): _series(each) for count, each in streaming.paced.items()},
        "flood": _series(streaming.flood),
        "low": _series(streaming.low),
    }


def _series(each: Mapping[str, Series]) -> dict[str, object]:
    return {
        name: {"ticks_missed": series.ticks_missed, "rounds": [msgspec.to_builtins(load) for load in series.loads]}
        for name, series in each.items()
    }


def measure(report: Report, rows: frozenset[int], effort: Effort, seed: int, say: Callable[[str], None]) -> bool:
    """Run the parts that the wanted rows need, the cheap ones first. False where one of them gave no result."""
    BUILD_DIR.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD_DIR, prefix="run-", ignore_cleanup_errors=True) as folder:
        place = Place(build_tools(), plan_cpus(), Path(folder))
        parts: list[tuple[frozenset[int], Callable[[], list[Row]]]] = [
            (frozenset({9}), lambda: [measure_core(effort, say)]),
            (STREAMING, lambda: report.stream(measure_streaming(place, effort, seed, say))),
            (ACCEPTING, lambda: measure_accepts(place, effort, seed, say)),
            (frozenset({7}), lambda: [measure_overload(place, effort, seed, say)]),
            (frozenset({10}), lambda: [measure_idle(place, effort, say)]),
            (frozenset({11}), lambda: [measure_starts(place, effort, seed, say)]),
        ]
        results = [_take(report, part, say) for gives, part in parts if rows & gives]
        return all(results)


def _take(report: Report, part: Callable[[], list[Row]], say: Callable[[str], None]) -> bool:
    """A part that fails takes the others' figures with it no more than a missing nginx does."""
    try:
        report.rows += part()
    except (InvalidRunError, RuntimeError, AssertionError, OSError) as error:
        say(f"NO RESULT: {error}")
        return False
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, keep. Gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description="Measure the rows of docs/performance.md.")
    parser.add_argument("--quick", action="store_true", help="about three minutes, for a look")
    parser.add_argument("--rows", type=int, nargs="+", choices=sorted(ALL), help="only the parts that give these rows")
    parser.add_argument("--seed", type=int, default=1, help="of the order of systems and the lengths of streams")
    arguments = parser.parse_args(argv)
    effort, began = QUICK if arguments.quick else FULL, time.monotonic()
    RESULTS_DIR.mkdir(parents=True, exist_ok=True)
    report = Report(RESULTS_DIR / time.strftime("bench-%Y%m%d-%H%M%S", time.gmtime()))
    if find_nginx() is None:
        print("skipped: nginx is not installed, so nothing can be compared with it", file=sys.stderr)
    print(f"skipped: {LEFT_OUT}", file=sys.stderr)
    is_complete = measure(report, frozenset(arguments.rows or ALL), effort, arguments.seed, _say(began))
    written = [report.write(effort, arguments.seed, began), *report.plot()]
    print(render(sorted(report.rows, key=lambda row: row.number)))
    print(f"\ntook {time.monotonic() - began:.0f} s; kept in", *(str(path) for path in written))
    return int(not is_complete or any(row.verdict is Verdict.MISSED for row in report.rows))


def _say(began: float) -> Callable[[str], None]:
    return lambda text: print(f"[{time.monotonic() - began:4.0f} s] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
