"""Engine logs are turned over one by one: one that cannot be is named once, and holds up no other."""

import asyncio
import os
from pathlib import Path

import pytest

from supervisor.runtime.engine_logs import numbered
from supervisor.upkeep import LOG_BYTES_MAX, keep_logs
from tests.support.waiting import until


async def test_a_log_that_cannot_be_turned_over_is_named_once_and_the_others_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    link, large = tmp_path / "a.log", tmp_path / "b.log"
    link.symlink_to(tmp_path / "elsewhere")
    large.touch()
    os.truncate(large, LOG_BYTES_MAX + 1)
    keeping = asyncio.create_task(keep_logs(lambda: [link, large], every_s=0.001))
    await until(lambda: keeping.done() or numbered(large, 1).exists(), what="the older log")
    os.truncate(large, LOG_BYTES_MAX + 1)
    await until(lambda: keeping.done() or numbered(large, 2).exists(), what="a second older log")
    is_over = keeping.done()
    keeping.cancel()
    await asyncio.wait([keeping])

    assert not is_over
    assert [record.__dict__["file"] for record in caplog.records] == ["a.log"]
