"""Between the last question whether a model is needed and its end nobody comes to load it (ORCH-3042)."""

import asyncio
import fcntl
import os
import threading
from pathlib import Path

import pytest

from supervisor.config.catalogue import Catalogue, Entry
from supervisor.config.models import ModelArtifact
from supervisor.runtime.model_files import ModelFileError, ModelFiles
from supervisor.store.holding import hold, is_held
from supervisor.store.shelf import Shelf
from tests.store.conftest import Orchctl, a_gguf
from tests.store.test_keeping import add, names
from tests.support.waiting import until

WORKER = ("pool", 1)


@pytest.fixture
def stored(orchctl: Orchctl) -> tuple[Shelf, Entry]:
    """A store with one model."""
    add(orchctl, "other")
    entry = orchctl.catalogue.find("other")
    assert entry is not None
    return Shelf(orchctl.store), entry


def artifact(shelf: Shelf, entry: Entry) -> ModelArtifact:
    return ModelArtifact(shelf.root / entry.place, entry.digest, shelf.root)


@pytest.mark.orch("ORCH-3042")
@pytest.mark.parametrize("is_needed", [False, True])
async def test_a_load_that_begins_after_the_last_question_waits_for_its_answer(
    stored: tuple[Shelf, Entry], *, is_needed: bool
) -> None:
    shelf, entry = stored
    files, asked, answered = ModelFiles(), threading.Event(), threading.Event()

    def needed(_: Catalogue) -> set[str]:
        asked.set()
        assert answered.wait(30)
        return {entry.digest} if is_needed else set()

    dropping = asyncio.create_task(asyncio.to_thread(shelf.drop, entry.digest, needed))
    await until(asked.is_set, what="the last question")
    loading = asyncio.create_task(files.verify(artifact(shelf, entry), WORKER))
    await until(lambda: _readers() == 1, what="the reader")
    is_over = loading.done()
    answered.set()
    dropped = await dropping
    (found,) = await asyncio.gather(loading, return_exceptions=True)

    assert (is_over, dropped) == (False, not is_needed)
    if is_needed:
        assert found == entry.digest
    else:
        assert isinstance(found, ModelFileError)
        assert "No such file or directory" in str(found)
    files.release(WORKER)


def _readers() -> int:
    return sum(thread.name == "model digest" for thread in threading.enumerate())


@pytest.mark.orch("ORCH-3042")
@pytest.mark.parametrize("how", ["drop", "forget"])
async def test_a_model_that_a_daemon_holds_is_not_dropped_whatever_the_answer(
    stored: tuple[Shelf, Entry], how: str
) -> None:
    shelf, entry = stored
    files = ModelFiles()
    await files.verify(artifact(shelf, entry), WORKER)

    gone = shelf.drop(entry.digest, lambda _: set()) if how == "drop" else shelf.forget(entry, lambda _: set())

    assert not gone
    assert (shelf.root / entry.place).is_file()
    files.release(WORKER)
    assert shelf.forget(entry, lambda _: set())
    assert not (shelf.root / entry.place).exists()


def test_who_looks_whether_a_file_is_held_does_not_keep_another_from_holding_it(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.touch()
    looker, holder = os.open(path, os.O_RDONLY), os.open(path, os.O_RDONLY)
    fcntl.flock(looker, fcntl.LOCK_EX)

    hold(holder, lambda: fcntl.flock(looker, fcntl.LOCK_UN))

    assert is_held(looker)
    os.close(holder)
    os.close(looker)


def test_a_stranger_who_never_lets_go_of_a_file_keeps_nobody_from_it(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.touch()
    stranger, holder = os.open(path, os.O_RDONLY), os.open(path, os.O_RDONLY)
    fcntl.flock(stranger, fcntl.LOCK_EX)
    looks: list[None] = []

    hold(holder, lambda: looks.append(None), within_s=0.05)

    assert looks
    os.close(holder)
    os.close(stranger)


def test_one_model_under_two_names_of_its_file_is_found_by_both(orchctl: Orchctl) -> None:
    for name in ("one", "two"):
        (orchctl.folder / f"{name}.gguf").write_bytes(a_gguf())
        ran = orchctl("add", str(orchctl.folder / f"{name}.gguf"), "--name", name)
        assert ran.returncode == 0, ran.stderr

    checked = orchctl("verify")

    assert checked.returncode == 0, checked.stdout
    assert names(orchctl) == ["one", "two"]
    assert all((orchctl.store / entry.place).is_file() for entry in orchctl.catalogue.models)
