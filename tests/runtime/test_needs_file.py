"""What was learned about needs is on disk, and a file that cannot be read costs nothing but what it held."""

import asyncio
from pathlib import Path

import pytest

from supervisor.core.effects import CommitNeeds
from supervisor.core.needs import LearnedNeed
from supervisor.runtime.needs_file import NAME, NeedsFile

LEARNED = (LearnedNeed("r", "b1", peaks=(8_000,), floors=(8_800,), runs=2, load_ms=1_500.0),)


def commit(folder: Path, *all_entries: tuple[LearnedNeed, ...]) -> None:
    async def write() -> None:
        file = NeedsFile(folder)
        for entries in all_entries:
            file.commit(CommitNeeds(entries))
        await file.close()

    asyncio.run(write())


def test_the_last_commit_is_read_back(tmp_path: Path) -> None:
    commit(tmp_path, (), LEARNED)

    found = NeedsFile(tmp_path).read()

    assert found is not None
    assert found.entries == LEARNED
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


def test_nothing_is_read_where_nothing_was_stored(tmp_path: Path) -> None:
    assert NeedsFile(tmp_path).read() is None


@pytest.mark.parametrize("text", ["", "{", '{"entries": 7}', '{"entries": [{"recipe": 1}]}', "[]"])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / NAME
    path.write_text(text)
    path.chmod(0o600)

    assert NeedsFile(tmp_path).read() is None
