"""The wishes of operators: stored and read again; what cannot be read is put aside and never written over."""

from pathlib import Path

import pytest

from supervisor.core.effects import CommitIntent
from supervisor.core.intent import Intent
from supervisor.runtime.intent_file import NAME, IntentFile
from supervisor.runtime.private_files import ASIDE_MAX, put_aside


def a_file(folder: Path) -> IntentFile:
    return IntentFile(folder, lambda: 0.0)


async def store_wishes(wishes: IntentFile) -> None:
    wishes.commit(CommitIntent(Intent()))
    await wishes.close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_wishes_are_read_again(tmp_path: Path) -> None:
    await store_wishes(a_file(tmp_path))
    found = a_file(tmp_path).read()

    assert found is not None
    assert found.intent == Intent()


async def test_a_file_that_cannot_be_read_is_kept_beside_the_next_one(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"intent": broken')
    wishes = a_file(tmp_path)
    found = wishes.read()
    await store_wishes(wishes)

    assert found is None
    assert (tmp_path / f"{NAME}.bad-1").read_text() == '{"intent": broken'
    assert a_file(tmp_path).read() is not None


async def test_a_folder_in_its_place_is_put_aside_too(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    wishes = a_file(tmp_path)
    wishes.read()
    await store_wishes(wishes)

    assert names(tmp_path) == [NAME, f"{NAME}.bad-1"]
    assert a_file(tmp_path).read() is not None


async def test_what_can_neither_be_read_nor_moved_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("broken")
    for number in range(1, ASIDE_MAX + 1):
        folder = tmp_path / f"{NAME}.bad-{number}"
        folder.mkdir()
        (folder / "something").touch()
    wishes = a_file(tmp_path)
    wishes.read()
    await store_wishes(wishes)

    assert (tmp_path / NAME).read_text() == "broken"


def test_only_the_newest_of_them_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for number in range(ASIDE_MAX + 3):
        path.write_text(str(number))
        put_aside(path)

    assert [(tmp_path / name).read_text() for name in names(tmp_path)] == ["5", "4", "3"]
    with pytest.raises(FileNotFoundError):
        put_aside(path)
