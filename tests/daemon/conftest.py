"""Daemons for the tests of this folder: every one is ended, with its engines, whatever the test did."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.fake_nvml import nvml, nvml_library
from tests.support.fault_watch import FaultWatch, Measure
from tests.support.pools import a_model, a_pool

__all__ = ["nvml", "nvml_library"]

MakeDaemon = Callable[..., Daemon]


@pytest.fixture
def make_daemon(tmp_path: Path, request: pytest.FixtureRequest, measured: Measure) -> Iterator[MakeDaemon]:
    """A daemon with the tiny model and, unless the test says otherwise, one pool on the real engine.

    What a fault must never leave behind is looked for after each test that injects one.
    """
    made: list[Daemon] = []
    watches: list[FaultWatch] = []

    def make(*pools: dict[str, Any], settings: dict[str, Any] | None = None, **options: Any) -> Daemon:
        config = {"pools": list(pools) or [a_pool()], "models": a_model(tmp_path), **(settings or {})}
        made.append(Daemon(tmp_path, config, **options))
        if request.node.get_closest_marker("fault") is not None:
            watches.append(FaultWatch(made[-1], measured))
            made[-1].on_ready = watches[-1].note_ready
            made[-1].silence = watches[-1].silence_allowed
        return made[-1]

    yield make
    try:
        for watch in reversed(watches):  # two may share a folder: the later one runs
            watch.check()
    finally:
        _close(made)


def _close(made: list[Daemon]) -> None:
    """Every one, also where another one cannot be ended."""
    with contextlib.ExitStack() as ends:
        for daemon in made:
            ends.callback(daemon.close)


@pytest.fixture
def daemon(make_daemon: MakeDaemon) -> Daemon:
    """One Ready daemon with one pool on the real engine."""
    return make_daemon().start_ready()
