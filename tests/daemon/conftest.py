"""Daemons for the tests of this folder: every one is ended, with its engines, whatever the test did."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.fake_nvml import nvml, nvml_library
from tests.support.pools import a_model, a_pool

__all__ = ["nvml", "nvml_library"]

MakeDaemon = Callable[..., Daemon]


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[MakeDaemon]:
    """A daemon with the tiny model and, unless the test says otherwise, one pool on the real engine."""
    made: list[Daemon] = []

    def make(*pools: dict[str, Any], settings: dict[str, Any] | None = None, **options: Any) -> Daemon:
        config = {"pools": list(pools) or [a_pool()], "models": a_model(tmp_path), **(settings or {})}
        made.append(Daemon(tmp_path, config, **options))
        return made[-1]

    yield make
    for daemon in made:
        daemon.close()


@pytest.fixture
def daemon(make_daemon: MakeDaemon) -> Daemon:
    """One Ready daemon with one pool on the real engine."""
    return make_daemon().start_ready()
