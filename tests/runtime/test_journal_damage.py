import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.runtime.journal import database
from supervisor.runtime.journal.faults import JournalTooNewError
from supervisor.runtime.journal.journal import Journal
from supervisor.runtime.journal.records import AcceptRecord, Durability, FinishRecord, Restored
from supervisor.runtime.journal.store import Store
from tests.support.journals import a_finish, an_accept, an_attempt, finished_ids, unfinished_ids, what_is_left

TASKS = 300
FINISHED = 60
PAGE = 4096


def _records() -> tuple[list[AcceptRecord], list[FinishRecord]]:
    source = random.Random(7)
    accepts = [an_accept(f"job-{number}", source.randbytes(source.randrange(6000))) for number in range(TASKS)]
    finishes = [a_finish(f"job-{number * 5}", frames=source.randbytes(2000)) for number in range(FINISHED)]
    return accepts, finishes


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of 300 tasks, every fifth finished, cleanly closed."""
    path = tmp_path_factory.mktemp("whole") / "journal"
    accepts, finishes = _records()
    store, _ = Store.open(path, Durability.NORMAL)
    store.commit([*accepts, *(an_attempt(finish.job_id, 1) for finish in finishes)])
    store.commit(finishes)
    store.close()
    return path


@pytest.fixture
def damaged(whole: Path, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "journal"
    shutil.copy(whole, path)
    yield path
    _check_usable(path)


def _check_usable(path: Path) -> None:
    """The journal that took the place of a damaged one is whole, and keeps what is written to it."""
    journal, restored = Journal.open(path.parent, Durability.FULL)
    journal.close()
    assert restored.damage is None
    assert path.stat().st_mode & 0o777 == 0o600


def _check_intact(restored: Restored) -> None:
    """Nothing comes back that was not written, and nothing twice or half."""
    accepts, finishes = _records()
    by_id = {accept.job_id: accept for accept in accepts}
    finish_by_id = {finish.job_id: finish for finish in finishes}
    assert all(task.accept == by_id[task.accept.job_id] for task in restored.unfinished)
    assert all(task.finish == finish_by_id[task.finish.job_id] for task in restored.finished)
    ids = unfinished_ids(restored) + finished_ids(restored)
    assert len(ids) == len(set(ids))


def test_the_sample_is_whole(damaged: Path) -> None:
    restored = what_is_left(damaged.parent)

    assert len(restored.unfinished) == TASKS - FINISHED
    assert len(restored.finished) == FINISHED
    assert restored.damage is None
    _check_intact(restored)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"not a database at all\n" * 1000, b"SQLite format 3\0"])
def test_garbage_is_set_aside_and_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(content)

    restored = what_is_left(tmp_path)

    assert restored.damage is not None
    assert restored.damage.quarantined == "journal.damaged-1"
    assert (tmp_path / "journal.damaged-1").exists()
    assert restored.unfinished == []
    _check_usable(path)


@pytest.mark.fault("F10")
@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.5, 0.9, 0.999])
def test_a_cut_file_gives_back_whole_tasks_only(damaged: Path, share: float) -> None:
    size = round(damaged.stat().st_size * share)
    with damaged.open("r+b") as file:
        file.truncate(size)

    restored = what_is_left(damaged.parent)

    assert restored.damage is not None
    assert restored.damage.waiting_salvaged == len(restored.unfinished)
    assert restored.damage.finished_salvaged == len(restored.finished)
    _check_intact(restored)


@pytest.mark.fault("F10")
def test_one_spoiled_page_costs_only_its_own_tasks(damaged: Path) -> None:
    with damaged.open("r+b") as file:
        file.seek(100 * PAGE)
        file.write(b"\xff" * PAGE)

    restored = what_is_left(damaged.parent)

    assert restored.damage is not None
    assert len(restored.unfinished) + len(restored.finished) >= TASKS - 5
    _check_intact(restored)


def _flip_a_bit(path: Path, needle: bytes) -> None:
    content = path.read_bytes()
    place = content.index(needle)
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


def _body_of(job_id: str) -> bytes:
    accepts, _ = _records()
    return next(accept.body for accept in accepts if accept.job_id == job_id)


@pytest.mark.fault("F10")
@pytest.mark.parametrize("needle", [_body_of("job-101")[20:60], b"task-of-job-101"])
def test_a_flipped_bit_in_a_waiting_task_is_found_and_costs_that_task(damaged: Path, needle: bytes) -> None:
    _flip_a_bit(damaged, needle)

    restored = what_is_left(damaged.parent)

    assert restored.damage is not None
    assert restored.damage.rows_torn == 1
    assert "job-101" not in unfinished_ids(restored)
    assert len(restored.unfinished) == TASKS - FINISHED - 1
    _check_intact(restored)


@pytest.mark.parametrize("needle", [_records()[1][20].frames[:40], b"task-of-job-100", b'{"text":"hi"}'])
def test_a_flipped_bit_in_a_finished_task_is_found_and_costs_that_task(damaged: Path, needle: bytes) -> None:
    _flip_a_bit(damaged, needle)

    restored = what_is_left(damaged.parent)

    assert restored.damage is not None
    assert restored.damage.rows_torn == 1
    assert len(restored.unfinished) == TASKS - FINISHED
    assert len(restored.finished) == FINISHED - 1
    _check_intact(restored)


def test_tasks_beyond_a_spoiled_page_are_read_from_the_end(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    store, _ = Store.open(path, Durability.NORMAL)
    store.commit([an_accept(f"job-{number}") for number in range(12_000)])
    store.close()
    with path.open("r+b") as file:
        file.seek(20 * PAGE)
        file.write(b"\xff" * PAGE)

    restored = what_is_left(tmp_path)

    assert 11_900 < len(restored.unfinished) < 12_000


@settings(max_examples=25, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), length=st.sampled_from([1, 1, 16, 5000]))
def test_no_damage_stops_the_daemon_or_alters_a_task(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, place: float, flip: int, length: int
) -> None:
    path = tmp_path_factory.mktemp("flipped") / "journal"
    content = bytearray(whole.read_bytes())
    start = int(place * len(content))
    for position in range(start, min(start + length, len(content))):
        content[position] ^= flip
    path.write_bytes(content)

    restored = what_is_left(path.parent)

    _check_intact(restored)
    _check_usable(path)
    shutil.rmtree(path.parent)


@pytest.mark.parametrize("place", range(16, 100))
def test_a_flipped_byte_of_the_header_is_survived_or_refused_as_too_new(damaged: Path, place: int) -> None:
    content = bytearray(damaged.read_bytes())
    content[place] ^= 0x41
    damaged.write_bytes(content)

    try:
        restored = what_is_left(damaged.parent)
    except JournalTooNewError:
        damaged.unlink()
        assert place in range(60, 64)
        return

    _check_intact(restored)


def _a_log_of_another_journal(scratch: Path) -> bytes:
    store, _ = Store.open(scratch / "journal", Durability.NORMAL)
    store.commit([an_accept("stray", b"x" * 20_000)])
    log = (scratch / "journal-wal").read_bytes()
    store.close()
    return log


def test_an_interrupted_replacement_goes_on_from_every_step(whole: Path, tmp_path: Path) -> None:
    steps = {
        "built": ("journal", "journal-wal", "journal.rebuilt"),
        "file moved": ("journal-wal", "journal.damaged-1", "journal.rebuilt"),
        "log moved": ("journal.damaged-1", "journal.damaged-1-wal", "journal.rebuilt"),
        "draft only": ("journal", "journal.draft"),
    }
    bad = {"journal-wal": _a_log_of_another_journal(tmp_path)}
    for step, names in steps.items():
        state_dir = tmp_path / step
        state_dir.mkdir(mode=0o700)
        for name in names:
            good = name in {"journal.rebuilt", "journal"} if step == "draft only" else name == "journal.rebuilt"
            shutil.copy(whole, state_dir / name) if good else (state_dir / name).write_bytes(bad.get(name, b"garbage"))

        restored = what_is_left(state_dir)

        assert (step, len(restored.unfinished)) == (step, TASKS - FINISHED)
        assert restored.damage is None
        assert not (state_dir / "journal.rebuilt").exists()


def test_few_damaged_files_are_kept_and_the_oldest_goes_first(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for number in range(database.QUARANTINE_MAX + 3):
        path.write_bytes(b"garbage %d" % number)
        what_is_left(tmp_path)

    kept = [file.name for file in database.quarantined(path)]

    assert kept == ["journal.damaged-4", "journal.damaged-5", "journal.damaged-6", "journal.damaged-7"]
    assert (tmp_path / kept[-1]).read_bytes() == b"garbage 6"


def test_a_spoiled_log_costs_only_what_it_held(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    store, _ = Store.open(path, Durability.FULL)
    store.commit([an_accept("in-file")])
    store.checkpoint()
    store.commit([an_accept("in-log")])
    crashed = tmp_path / "crashed"
    crashed.mkdir(mode=0o700)
    shutil.copy(path, crashed / "journal")
    (crashed / "journal-wal").write_bytes(b"\xff" * 10_000)
    store.close()

    restored = what_is_left(crashed)

    assert unfinished_ids(restored) == ["in-file"]
