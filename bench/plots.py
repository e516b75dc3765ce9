"""Pictures of a run: how late a token is, and what it costs, against the number of streams."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from bench.load import Load
from bench.rounds import Series

WIDTH_IN = 8
HEIGHT_IN = 4.5

Paced = Mapping[int, Mapping[str, Series]]
Panel = tuple[str, Callable[[Load], float]]

COST: tuple[Panel, ...] = (("CPU us per token", lambda load: load.us_per_token),)
LATENCY: tuple[Panel, ...] = (
    ("one-way latency p50, ms", lambda load: load.latency_ms.p50),
    ("one-way latency p99, ms", lambda load: load.latency_ms.p99),
)


def has_plots() -> bool:
    """Whether matplotlib is installed: it comes with the `dev` extra."""
    return find_spec("matplotlib") is not None


def plot_streams(paced: Paced, panels: tuple[Panel, ...], title: str, into: Path) -> Path:
    """One line for each system over the numbers of streams. Gives the PNG's path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  (heavy, and optional)
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    streams = sorted(paced)
    for axis, (label, pick) in zip(axes, panels, strict=True):
        for name in paced[streams[0]]:
            if name == "direct" and pick is COST[0][1]:
                continue  # nothing is in the middle: what is watched there is the engine
            axis.plot(streams, [paced[count][name].middle(pick) for count in streams], marker="o", label=name)
        axis.set_xlabel("streams, a token each 20 ms")
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(visible=True, alpha=0.3)
        axis.legend()
    figure.suptitle(title)
    figure.savefig(into, dpi=120)
    return into
