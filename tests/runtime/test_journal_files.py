import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.runtime.journal.faults import JournalError, JournalLockedError, JournalTooNewError
from supervisor.runtime.journal.journal import Journal
from supervisor.runtime.journal.records import Durability, ForgetRecord
from supervisor.runtime.journal.store import FREE_PAGES_KEPT, Store
from tests.support.journals import a_finish, a_running_journal, an_accept, unfinished_ids, what_is_left
from tests.support.turnover import turn_over


@pytest.fixture(params=[0o000, 0o777])
def odd_umask(request: pytest.FixtureRequest) -> Iterator[int]:
    old = os.umask(request.param)
    yield request.param
    os.umask(old)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_nobody_else_can_read_the_journal_whatever_the_umask(tmp_path: Path, odd_umask: int) -> None:
    state_dir = tmp_path / "state"

    async with a_running_journal(state_dir) as (journal, ear):
        journal.write(an_accept("job-1"))
        await ear.wait_accepted("job-1")
        modes = {file.name: _mode(file) for file in state_dir.iterdir()}

    assert modes == {"journal": 0o600, "journal-wal": 0o600, "daemon.lock": 0o600}
    assert _mode(state_dir) == 0o700


async def test_a_journal_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    what_is_left(tmp_path)
    (tmp_path / "journal").chmod(0o644)

    what_is_left(tmp_path)

    assert _mode(tmp_path / "journal") == 0o600


def test_one_daemon_per_state_directory(tmp_path: Path) -> None:
    first, _ = Journal.open(tmp_path, Durability.FULL)

    with pytest.raises(JournalLockedError, match=f"process {os.getpid()} already uses") as caught:
        Journal.open(tmp_path, Durability.FULL)

    assert caught.value.pid == os.getpid()
    first.close()
    second, _ = Journal.open(tmp_path, Durability.FULL)
    second.close()


def test_a_failed_open_leaves_no_lock_behind(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    with pytest.raises(JournalError, match=r"not a regular file|Is a directory"):
        Journal.open(tmp_path, Durability.FULL)
    (tmp_path / "journal").rmdir()

    restored = what_is_left(tmp_path)

    assert restored.unfinished == []


def test_links_are_refused(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    what_is_left(real)
    link.symlink_to(real)
    (real / "journal").rename(tmp_path / "elsewhere")
    (real / "journal").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "other").mkdir(mode=0o700)
    (tmp_path / "other" / "daemon.lock").symlink_to(tmp_path / "elsewhere")

    for state_dir in (link, real, tmp_path / "other"):
        with pytest.raises(JournalError, match="link"):
            Journal.open(state_dir, Durability.FULL)


def test_a_link_to_nowhere_is_not_taken_for_a_missing_journal(tmp_path: Path) -> None:
    (tmp_path / "journal").symlink_to(tmp_path / "nowhere")

    with pytest.raises(JournalError, match="symbolic link"):
        Journal.open(tmp_path, Durability.FULL)

    assert not (tmp_path / "nowhere").exists()


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o770)

    with pytest.raises(JournalError, match="chmod 700"):
        Journal.open(tmp_path, Durability.FULL)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
@pytest.mark.parametrize("name", [".", "journal", "daemon.lock"])
def test_what_belongs_to_another_user_is_refused(tmp_path: Path, name: str) -> None:
    what_is_left(tmp_path)
    os.chown(tmp_path / name, 65_534, 65_534)

    with pytest.raises(JournalError, match="belongs to user 65534"):
        Journal.open(tmp_path, Durability.FULL)


def test_a_journal_of_a_newer_daemon_is_left_alone(tmp_path: Path) -> None:
    what_is_left(tmp_path)
    with sqlite3.connect(tmp_path / "journal") as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()

    with pytest.raises(JournalTooNewError, match="format 2"):
        Journal.open(tmp_path, Durability.FULL)

    assert sorted(file.name for file in tmp_path.iterdir()) == ["daemon.lock", "journal"]


def test_the_file_shrinks_again_and_the_log_is_cut_when_idle(tmp_path: Path) -> None:
    store, _ = Store.open(tmp_path / "journal", Durability.NORMAL)
    names = [f"job-{number}" for number in range(60)]
    store.commit([an_accept(name) for name in names])
    store.commit([a_finish(name, frames=b"x" * 500_000) for name in names])
    store.commit([ForgetRecord(job_ids=tuple(names))])
    store.checkpoint()
    before = (tmp_path / "journal").stat().st_size

    rounds = 1
    while not store.tidy():
        rounds += 1

    after = (tmp_path / "journal").stat().st_size
    assert before > 30_000_000
    assert rounds > 1
    assert after <= (FREE_PAGES_KEPT + 16) * 4096
    assert (tmp_path / "journal-wal").stat().st_size == 0
    store.close()


async def test_the_log_stays_bounded_while_tasks_keep_coming(tmp_path: Path) -> None:
    async with a_running_journal(tmp_path) as (journal, ear):
        for number in range(40):
            journal.write(an_accept(f"job-{number}", body=b"x" * 1_000_000))
            await ear.wait_accepted(f"job-{number}")

        log_bytes = (tmp_path / "journal-wal").stat().st_size

        assert log_bytes < 12_000_000
    assert len(unfinished_ids(what_is_left(tmp_path))) == 40


async def test_the_files_stop_growing_once_as_many_tasks_go_as_come(tmp_path: Path) -> None:
    sizes = await turn_over(tmp_path, tasks=4_000, kept=500)

    assert max(sizes) < 2 * max(sizes[:10])
