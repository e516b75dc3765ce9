"""A store whose folders were replaced by links: nothing outside it is written or thrown away, not even for root."""

from pathlib import Path

import pytest

from supervisor.store.faults import StoreError
from supervisor.store.flight import Berth
from supervisor.store.folders import held_folder
from supervisor.store.leftovers import clear_leftovers, count_leftovers
from supervisor.store.shelf import note_use
from tests.store.conftest import MakeHub, Orchctl, a_gguf
from tests.support.hub import REPO


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of somebody else, with folders and files in it."""
    folder = tmp_path / "victim"
    for name in ("etc", "files", "incoming"):
        (folder / name).mkdir(parents=True)
        (folder / name / "precious").write_text("mine")
    return folder


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def swap(folder: Path, target: Path) -> None:
    """Put a link where the folder is."""
    folder.rename(folder.with_name(f"{folder.name}.away"))
    folder.symlink_to(target)


@pytest.mark.parametrize("which", ["store", "partial"])
@pytest.mark.parametrize("line", [("prune", "--to", "0", "--yes"), ("pull", f"repo:{REPO}"), ("add", "m.gguf")])
def test_a_folder_that_is_a_link_is_refused_and_what_it_leads_to_stays(
    orchctl: Orchctl, make_hub: MakeHub, victim: Path, which: str, line: tuple[str, ...]
) -> None:
    make_hub()
    (orchctl.folder / "m.gguf").write_bytes(a_gguf())
    assert orchctl("add", "m.gguf", "--name", "first").returncode == 0
    swap(orchctl.store if which == "store" else orchctl.store / "partial", victim)
    before = tree(victim)

    ran = orchctl(*line, *(("--name", "second") if line[0] == "add" else ()))

    assert ran.returncode == 1
    assert "symbolic link" in ran.stderr
    assert tree(victim) == before


@pytest.mark.parametrize("place", ["add-second", "add-second/files", "add-second/incoming"])
def test_a_berth_that_leads_elsewhere_is_not_written_to(orchctl: Orchctl, victim: Path, place: str) -> None:
    partial = orchctl.store / "partial"
    (partial / place).parent.mkdir(parents=True)
    (partial / place).symlink_to(victim)
    before = tree(victim)
    berth = Berth(partial, "add-second")

    with pytest.raises(StoreError, match="symbolic link"), berth.held(lambda _: None):
        berth.prepare()

    assert tree(victim) == before


def test_leftovers_go_and_links_among_them_are_left_alone(tmp_path: Path, victim: Path) -> None:
    partial = tmp_path / "store" / "partial"
    (partial / "old" / "files").mkdir(parents=True)
    (partial / "old" / "files" / "inner").symlink_to(victim)
    (partial / "trap").symlink_to(victim)
    (partial / "gone.lock").touch()
    before = tree(victim)

    counted, cleared = count_leftovers(partial), clear_leftovers(partial)

    assert (counted, cleared) == (1, 1)
    assert [path.name for path in partial.iterdir()] == ["trap"]
    assert tree(victim) == before


def test_a_step_that_is_a_link_is_not_taken(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "deep").symlink_to(victim)

    with pytest.raises(StoreError, match="symbolic link"), held_folder(tmp_path / "files", "deep/er", 0o755):
        pass

    assert not (victim / "er").exists()


def test_a_held_folder_stays_the_one_that_was_opened(tmp_path: Path, victim: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    with held_folder(folder) as here:
        swap(folder, victim)
        (here / "new").write_text("x")

    assert not (victim / "new").exists()
    assert (tmp_path / "files.away" / "new").is_file()


@pytest.mark.parametrize("which", ["stamp", "used"])
def test_the_note_of_a_use_is_written_through_no_link(tmp_path: Path, victim: Path, which: str) -> None:
    digest = "sha256:" + "a" * 64
    store = tmp_path / "store"
    (store / "used").mkdir(parents=True)
    if which == "stamp":
        (store / "used" / ("a" * 64)).symlink_to(victim / "new")
    else:
        swap(store / "used", victim)
    before = tree(victim)

    note_use(store, digest)

    assert tree(victim) == before
