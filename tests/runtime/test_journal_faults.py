import asyncio
import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from supervisor.runtime.journal.faults import DamagedError, fault_of
from supervisor.runtime.journal.inbox import Bounds, Inbox
from supervisor.runtime.journal.records import (
    CommitFailed,
    Durability,
    Fault,
    JournalDied,
    NotTaken,
    Record,
    Report,
    WritableAgain,
)
from supervisor.runtime.journal.store import Store
from supervisor.runtime.journal.writer import Writer
from tests.support.journals import QUICK, Ear, a_finish, a_running_journal, an_accept, unfinished_ids, what_is_left

PROJECT = Path(__file__).parents[2]
IN_A_SMALL_TMPFS = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
MOUNT = 'mount -t tmpfs -o size=1m,mode=700 tmpfs "$0" && '


def _story(command: list[str], env: dict[str, str] | None = None) -> Any:
    environment = {**os.environ, **(env or {})}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=30, env=environment, cwd=PROJECT
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _check(story: Any, fault: Fault) -> None:
    assert story["fault"] == fault
    assert story["rejected"] == ["void"]
    assert story["newcomer"] == NotTaken.NOT_WRITABLE
    assert not story["writable_while_broken"]
    assert story["finish"] is None
    assert story["finished_while_broken"] == []
    assert story["finished_when_well"] == ["runs"]
    assert not story["void_in_log"]
    assert story["unwritten"] == 0
    assert story["left"] == ["before", "after"]
    assert story["ended"] == ["runs"]


def test_a_full_disk_rejects_newcomers_and_is_over_when_there_is_room(tmp_path: Path) -> None:
    probe_command = [*IN_A_SMALL_TMPFS, MOUNT + "true", str(tmp_path)]
    probe = subprocess.run(probe_command, check=False, capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"no private mounts for this user here: {probe.stderr.strip()}")
    run = 'exec "$1" -m tests.support.failing_disk full "$0"'

    story = _story([*IN_A_SMALL_TMPFS, MOUNT + run, str(tmp_path), sys.executable])

    _check(story, Fault.DISK_FULL)


def test_a_failing_write_rejects_newcomers_and_is_waited_out(tmp_path: Path) -> None:
    story = _story([sys.executable, "-m", "tests.support.failing_disk", "limit", str(tmp_path)])

    _check(story, Fault.IO)


def test_what_a_failed_fsync_left_in_the_log_never_comes_to_life(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    library = tmp_path / "fsync_fault.so"
    source = Path(__file__).parents[1] / "support" / "fsync_fault.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    env = {"LD_PRELOAD": str(library), "FSYNC_FAULT_FLAG": str(tmp_path / "broken")}

    story = _story([sys.executable, "-m", "tests.support.failing_disk", "fsync", str(tmp_path / "state")], env)

    _check(story, Fault.IO)


def test_close_gives_up_on_a_disk_that_stays_broken_and_says_what_is_lost(tmp_path: Path) -> None:
    story = _story([sys.executable, "-m", "tests.support.failing_disk", "limit", str(tmp_path), "for-good"])

    assert story["unwritten"] == 1
    assert unfinished_ids(what_is_left(tmp_path)) == ["before", "runs"]


async def test_damage_met_while_running_is_set_aside_and_the_work_goes_on(tmp_path: Path) -> None:
    names = [f"job-{number}" for number in range(3000)]
    async with a_running_journal(tmp_path) as (journal, ear):
        for name in names:
            journal.write(an_accept(name, body=b"x" * 3500))
        await ear.wait_accepted(*names)
    async with a_running_journal(tmp_path, before_start=lambda: _spoil_pages(tmp_path / "journal")) as (journal, ear):
        for name in names:
            journal.write(a_finish(name))
        await ear.wait_finished(*names)
        failed, well = await ear.wait_for(CommitFailed), await ear.wait_for(WritableAgain)
        journal.write(an_accept("after"))
        await ear.wait_accepted("after")

    assert failed.fault is Fault.DAMAGED
    assert well.damage is not None
    assert well.damage.waiting_salvaged + well.damage.finished_salvaged > 2950
    assert (tmp_path / well.damage.quarantined).exists()
    left = what_is_left(tmp_path)
    assert left.damage is None
    assert unfinished_ids(left) == ["after"]
    assert len(left.finished) > 2950


def _spoil_pages(path: Path) -> None:
    """Spoil early pages: those that a scan of the whole file has pushed out of the cache."""
    with path.open("r+b") as file:
        file.seek(200 * 4096)
        file.write(b"\xff" * 4096 * 20)


async def test_a_bug_in_the_writer_rejects_what_was_on_its_way(tmp_path: Path) -> None:
    class OutOfMemoryStore(Store):
        def commit(self, records: Sequence[Record]) -> None:
            raise MemoryError

    store, _ = OutOfMemoryStore.open(tmp_path / "journal", Durability.FULL)
    inbox = Inbox(Bounds(batch_jobs_max=1))
    ear = Ear()
    loop = asyncio.get_running_loop()

    def report(what: Report) -> None:
        loop.call_soon_threadsafe(ear, what)

    writer = Writer(store, inbox, report, QUICK)
    inbox.put(an_accept("in-hand"))
    inbox.put(an_accept("waiting"))

    writer.start()

    died = await ear.wait_for(JournalDied)
    assert died.rejected == ("in-hand", "waiting")
    assert inbox.put(an_accept("late")) is NotTaken.CLOSED
    writer.join()


def _sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("told so")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (_sqlite_error(sqlite3.SQLITE_FULL), Fault.DISK_FULL),
        (_sqlite_error(sqlite3.SQLITE_IOERR_FSYNC), Fault.IO),
        (_sqlite_error(sqlite3.SQLITE_READONLY_DBMOVED), Fault.READONLY),
        (_sqlite_error(sqlite3.SQLITE_CORRUPT_INDEX), Fault.DAMAGED),
        (_sqlite_error(sqlite3.SQLITE_NOTADB), Fault.DAMAGED),
        (_sqlite_error(sqlite3.SQLITE_CONSTRAINT), None),
        (_sqlite_error(sqlite3.SQLITE_TOOBIG), None),
        (OSError(errno.ENOSPC, "no space"), Fault.DISK_FULL),
        (OSError(errno.EDQUOT, "quota"), Fault.DISK_FULL),
        (OSError(errno.EROFS, "read-only"), Fault.READONLY),
        (OSError(errno.EIO, "input/output"), Fault.IO),
        (DamagedError("torn"), Fault.DAMAGED),
        (ValueError("twice"), None),
    ],
)
def test_every_error_of_storage_has_its_fault(error: Exception, fault: Fault | None) -> None:
    assert fault_of(error) is fault
