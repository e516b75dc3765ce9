"""One value in one file: what cannot be stored is tried again, also once more at the end."""

import asyncio
from pathlib import Path

import pytest
from msgspec import Struct

from supervisor.runtime.kept_file import KeptFile, read_kept
from tests.support.waiting import wait_until


class Wish(Struct):
    number: int


async def not_stored(folder: Path, wish: Wish, retry_s: float) -> tuple[KeptFile[Wish], Path]:
    """A file in a folder that is not there yet, after the first try."""
    path = folder / "away" / "wish.json"
    kept: KeptFile[Wish] = KeptFile(path, "a wish", retry_s=retry_s)
    kept.store(wish)
    await kept.wait_stored(5)
    return kept, path


async def test_what_cannot_be_stored_is_tried_again_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept, path = await not_stored(tmp_path, Wish(1), retry_s=0.01)
    path.parent.mkdir()
    found = await asyncio.to_thread(wait_until, lambda: read_kept(path, Wish), what="the wish on disk")
    await kept.close()

    assert found == Wish(1)
    assert [line.getMessage() for line in caplog.records] == ["a wish could not be stored"]


async def test_a_newer_value_is_never_written_over_by_one_that_is_tried_again(tmp_path: Path) -> None:
    kept, path = await not_stored(tmp_path, Wish(1), retry_s=0.01)
    path.parent.mkdir()
    kept.store(Wish(2))
    await kept.close()

    assert read_kept(path, Wish) == Wish(2)
    assert len(asyncio.all_tasks()) == 1, "nothing tries again"


async def test_the_end_tries_once_more(tmp_path: Path) -> None:
    kept, path = await not_stored(tmp_path, Wish(3), retry_s=3_600)
    path.parent.mkdir()
    await kept.close()

    assert read_kept(path, Wish) == Wish(3)
