"""The log of the journal, cut and flipped: it starts, loses nothing before the damage, and says what it found."""

import sqlite3
from contextlib import closing
from itertools import count
from pathlib import Path
from random import Random

import pytest

from supervisor.runtime.journal import wal
from supervisor.runtime.journal.records import Durability
from supervisor.runtime.journal.store import Store
from tests.support.crashed_journal import FRAME_BYTES, HEADER_BYTES, CrashedJournal, flipped
from tests.support.journals import an_accept

FLIPS = 60
CUTS = 60
FRAME_HEADER_BYTES = 24


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> CrashedJournal:
    return CrashedJournal(tmp_path_factory.mktemp("crashed") / "state")


def test_the_sample_is_whole_and_has_a_log(crashed: CrashedJournal, tmp_path: Path) -> None:
    restored = crashed.restore_damaged(tmp_path / "s")

    assert restored.damage is None
    assert len(restored.unfinished) + len(restored.finished) == len(crashed.accepts)
    assert len(restored.finished) == len(crashed.finishes)
    assert len(crashed.log) > 20 * FRAME_BYTES


def test_a_flipped_byte_anywhere_in_the_log(crashed: CrashedJournal, tmp_path: Path) -> None:
    chance = Random(5)
    frames = (len(crashed.log) - HEADER_BYTES) // FRAME_BYTES
    heads = [HEADER_BYTES + frame * FRAME_BYTES + chance.randrange(FRAME_HEADER_BYTES) for frame in range(frames)]
    places = [*range(0, HEADER_BYTES, 3), *heads, *(chance.randrange(len(crashed.log)) for _ in range(FLIPS))]
    damages = 0

    for number, at in zip(count(), places, strict=False):
        restored = crashed.restore_damaged(tmp_path / str(number), log=flipped(crashed.log, at))
        crashed.check_log_damage(restored, at, is_cut=False)
        damages += restored.damage is not None

    assert damages > len(places) / 2


def test_what_lies_behind_a_torn_page_is_saved(crashed: CrashedJournal, tmp_path: Path) -> None:
    """SQLite alone would give back the first commit of the log and none of the others, without a word."""
    second = next(commit.log_end for commit in crashed.commits if commit.log_end > 0) + FRAME_HEADER_BYTES + 100

    restored = crashed.restore_damaged(tmp_path / "s", log=flipped(crashed.log, second))

    assert restored.damage is not None
    assert restored.damage.log_frames_torn == 1
    assert len(restored.unfinished) + len(restored.finished) >= len(crashed.accepts) - 2


def test_a_log_cut_at_any_place(crashed: CrashedJournal, tmp_path: Path) -> None:
    chance = Random(6)
    ends = [commit.log_end + step for commit in crashed.commits[-4:] for step in (-1, 0, 1)]
    places = [0, 1, HEADER_BYTES, *ends, *(chance.randrange(len(crashed.log)) for _ in range(CUTS))]

    for number, at in enumerate(places):
        restored = crashed.restore_damaged(tmp_path / str(number), log=crashed.log[:at])

        crashed.check_log_damage(restored, at, is_cut=True)


@pytest.mark.parametrize("content", [b"", b"x" * 40, b"\0" * 50_000, b"\xff" * 50_000])
def test_noise_is_no_gap(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "log").write_bytes(content)

    assert wal.find_gap(tmp_path / "log") is None
    assert wal.find_gap(tmp_path / "none") is None


def test_frames_of_an_older_log_are_no_gap(tmp_path: Path) -> None:
    """A log is written over from its start: behind its end there are whole frames of the log before."""
    store, _ = Store.open(tmp_path / "journal", Durability.NORMAL)
    for number in range(10):
        store.commit([an_accept(f"old-{number}")])
    store.checkpoint()
    store.commit([an_accept("young")])

    gap = wal.find_gap(tmp_path / "journal-wal")

    assert (tmp_path / "journal-wal").stat().st_size > 10 * FRAME_BYTES
    assert gap is None
    store.close()


def test_a_last_commit_that_lost_its_first_page_was_never_answered_and_is_no_gap(tmp_path: Path) -> None:
    """Its pages may reach the disk in any order before the power fails."""
    with closing(sqlite3.connect(tmp_path / "x", isolation_level=None)) as base:
        base.executescript("pragma journal_mode=wal; pragma wal_autocheckpoint=0; create table t(a)")
        log = tmp_path / "x-wal"
        before = log.stat().st_size
        base.executescript("begin; " + "insert into t values(randomblob(3000)); " * 6 + "commit")
        last = log.read_bytes()
        base.execute("insert into t values(1)")
        followed = log.read_bytes()

    torn = bytes(FRAME_BYTES)
    (tmp_path / "last").write_bytes(last[:before] + torn + last[before + FRAME_BYTES :])
    (tmp_path / "followed").write_bytes(followed[:before] + torn + followed[before + FRAME_BYTES :])

    assert wal.find_gap(tmp_path / "last") is None
    assert wal.find_gap(tmp_path / "followed") is not None
