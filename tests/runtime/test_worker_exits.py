"""The end of an engine is told in every case: with a log that cannot be read, and with one that never answers."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.base import ExitKind
from adapters.llamacpp import LlamaCpp
from supervisor.runtime.worker_exits import Ended, read_exit_cause


def ended(log_path: Path, returncode: int, oom_kills: int | None = None) -> Ended:
    return Ended("pool", 3, 4711, 1, "pool/3 mark", log_path, returncode, oom_kills, is_tainted=False)


def put_a_link(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


def put_a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("put", [put_a_link, put_a_folder])
@pytest.mark.parametrize(
    ("returncode", "oom_kills", "kind"),
    [(-9, None, ExitKind.KILLED), (-9, 1, ExitKind.OOM_HOST), (-6, None, ExitKind.CRASHED)],
)
@pytest.mark.orch("ORCH-3039")
async def test_a_log_that_cannot_be_read_hides_no_end(
    tmp_path: Path, put: Callable[[Path], None], returncode: int, oom_kills: int | None, kind: ExitKind
) -> None:
    put(tmp_path / "engine.log")
    found = await read_exit_cause(ended(tmp_path / "engine.log", returncode, oom_kills), LlamaCpp())

    assert (found.pool_id, found.incarnation, found.kind) == ("pool", 3, kind)


async def test_a_log_that_never_answers_delays_the_news_for_a_bounded_time(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    os.mkfifo(path)
    found = await read_exit_cause(ended(path, -6), LlamaCpp(), within_s=0.05)
    os.close(os.open(path, os.O_RDWR))

    assert found.kind is ExitKind.CRASHED
