import asyncio
import threading
from pathlib import Path

import pytest

from supervisor.runtime.journal.inbox import Bounds
from supervisor.runtime.journal.journal import Journal
from supervisor.runtime.journal.records import (
    Committed,
    Durability,
    FinishedTask,
    ForgetRecord,
    NotTaken,
    RecordRefused,
    Report,
    RestoredTask,
)
from tests.support.journals import (
    QUICK,
    Ear,
    a_finish,
    a_running_journal,
    an_accept,
    an_attempt,
    files_holding,
    finished_ids,
    unfinished_ids,
    what_is_left,
)


@pytest.mark.parametrize("durability", list(Durability))
async def test_an_accepted_task_survives_with_its_prompt_and_attempts(tmp_path: Path, durability: Durability) -> None:
    accept = an_accept("job-1", body='{"prompt":"żółw\\u0000"}'.encode())
    async with a_running_journal(tmp_path, durability=durability) as (journal, ear):
        journal.write(accept)
        journal.write(an_attempt("job-1", 1))
        journal.write(an_attempt("job-1", 2))
        await ear.wait_accepted("job-1")

    restored = what_is_left(tmp_path)

    attempts = (an_attempt("job-1", 1), an_attempt("job-1", 2))
    assert restored.unfinished == [RestoredTask(accept=accept, attempts=attempts)]
    assert restored.finished == []
    assert restored.damage is None


async def test_a_finished_task_keeps_its_stream_and_loses_its_prompt(tmp_path: Path) -> None:
    accept, finish = an_accept("job-1"), a_finish("job-1", frames=b"id: 1\nevent: started\n\n" * 500)
    async with a_running_journal(tmp_path) as (journal, ear):
        for record in (accept, an_attempt("job-1", 1), an_attempt("job-1", 2), finish):
            journal.write(record)
        await ear.wait_finished("job-1")

    restored = what_is_left(tmp_path)

    without_prompt = an_accept("job-1", body=b"")
    assert restored.unfinished == []
    assert [task.finish for task in restored.finished] == [finish]
    assert restored.finished[0].attempts == 2
    assert restored.finished[0].accept.body_digest == accept.body_digest
    assert restored.finished[0].accept.task_id == without_prompt.task_id
    assert restored.finished[0].accept.body == b""


async def test_tasks_come_back_in_the_order_of_acceptance_and_of_finishing(tmp_path: Path) -> None:
    names = [f"job-{number}" for number in range(200)]
    async with a_running_journal(tmp_path) as (journal, ear):
        for name in names:
            journal.write(an_accept(name))
        journal.write(a_finish("job-7", finished_wall_ms=200))
        journal.write(a_finish("job-150", finished_wall_ms=100))
        await ear.wait_finished("job-7", "job-150")

    restored = what_is_left(tmp_path)

    assert unfinished_ids(restored) == [name for name in names if name not in {"job-7", "job-150"}]
    assert finished_ids(restored) == ["job-150", "job-7"]


async def test_records_of_one_job_in_two_runs_belong_together(tmp_path: Path) -> None:
    async with a_running_journal(tmp_path) as (journal, ear):
        journal.write(an_accept("job-1"))
        journal.write(an_accept("job-2"))
        await ear.wait_accepted("job-1", "job-2")
    async with a_running_journal(tmp_path) as (journal, ear):
        journal.write(a_finish("job-1"))
        journal.write(an_accept("job-3"))
        await ear.wait_accepted("job-3")

    restored = what_is_left(tmp_path)

    assert unfinished_ids(restored) == ["job-2", "job-3"]
    assert finished_ids(restored) == ["job-1"]


async def test_a_forgotten_task_is_gone(tmp_path: Path) -> None:
    async with a_running_journal(tmp_path) as (journal, ear):
        for name in ("job-1", "job-2", "job-3"):
            journal.write(an_accept(name))
            journal.write(a_finish(name))
        journal.write(ForgetRecord(job_ids=("job-1", "job-3", "unknown")))
        await ear.wait_finished("job-3")

    restored = what_is_left(tmp_path)

    assert finished_ids(restored) == ["job-2"]


async def test_the_bytes_of_a_prompt_leave_the_disk_with_its_task(tmp_path: Path) -> None:
    secret = b"the patient's name is Ottoline"
    async with a_running_journal(tmp_path) as (journal, ear):
        journal.write(an_accept("job-1", body=secret * 400))
        await ear.wait_accepted("job-1")
        is_on_disk = files_holding(tmp_path, secret) != []
        journal.write(a_finish("job-1"))
        await ear.wait_finished("job-1")

    left = files_holding(tmp_path, secret)

    assert is_on_disk
    assert left == []


async def test_what_arrived_together_is_committed_together_and_reported_once_in_order(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path, Durability.FULL)
    names = [f"job-{number}" for number in range(1000)]
    for name in names:
        journal.write(an_accept(name))
    ear = Ear()

    journal.start(asyncio.get_running_loop(), ear)
    await ear.wait_accepted(*names)

    assert ear.heard == [Committed(accepted=tuple(names), finished=())]
    assert journal.status.totals.commits == 1
    assert await asyncio.to_thread(journal.close) == 0


async def test_one_commit_takes_no_more_than_its_bounds(tmp_path: Path) -> None:
    bounds = Bounds(batch_jobs_max=10)
    journal, _ = Journal.open(tmp_path, Durability.FULL, bounds=bounds)
    names = [f"job-{number}" for number in range(25)]
    for name in names:
        journal.write(an_accept(name))
    ear = Ear()

    journal.start(asyncio.get_running_loop(), ear)
    await ear.wait_accepted(*names)

    assert [len(report.accepted) for report in ear.heard if isinstance(report, Committed)] == [10, 10, 5]
    await asyncio.to_thread(journal.close)


async def test_reports_are_made_on_the_loop(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path, Durability.FULL)
    heard_on: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def on_report(report: Report) -> None:
        heard_on.set_result(threading.get_ident())

    journal.start(asyncio.get_running_loop(), on_report)
    journal.write(an_accept("job-1"))

    assert await heard_on == threading.get_ident()
    await asyncio.to_thread(journal.close)


@pytest.mark.parametrize("bounds", [Bounds(accept_records_max=2), Bounds(accept_bytes_max=2000)])
async def test_a_full_journal_refuses_newcomers_and_lets_running_tasks_end(tmp_path: Path, bounds: Bounds) -> None:
    journal, _ = Journal.open(tmp_path, Durability.FULL, bounds=bounds)
    assert journal.write(an_accept("job-1", body=b"x" * 400)) is None
    assert journal.write(an_accept("job-2", body=b"x" * 400)) is None

    refusal = journal.write(an_accept("job-3", body=b"x" * 400))

    assert refusal is NotTaken.FULL
    assert journal.write(a_finish("job-1")) is None
    ear = Ear()
    journal.start(asyncio.get_running_loop(), ear)
    await ear.wait_finished("job-1")
    assert journal.write(an_accept("job-4")) is None
    assert await asyncio.to_thread(journal.close) == 0
    assert unfinished_ids(what_is_left(tmp_path)) == ["job-2", "job-4"]


async def test_even_finishes_have_a_bound(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path, Durability.FULL, bounds=Bounds(bytes_max=1000))

    refusal = journal.write(a_finish("job-1", frames=b"x" * 1000))

    assert refusal is NotTaken.FULL
    journal.close()


async def test_room_is_counted_until_the_commit_and_free_after_it(tmp_path: Path) -> None:
    async with a_running_journal(tmp_path) as (journal, ear):
        journal.write(an_accept("job-1"))
        journal.write(an_attempt("job-1", 1))
        journal.write(a_finish("job-1"))
        await ear.wait_finished("job-1")
        journal.write(an_accept("job-2"))
        await ear.wait_accepted("job-2")

        status = journal.status

        assert (status.pending_records, status.pending_bytes) == (0, 0)
        assert status.is_writable


async def test_a_record_that_cannot_be_stored_spoils_nothing_else(tmp_path: Path) -> None:
    twin = an_accept("job-2", body=b"another")
    journal, _ = Journal.open(tmp_path, Durability.FULL, pace=QUICK)
    for record in (an_accept("job-1"), an_accept("job-2"), twin, an_accept("job-\ud800"), an_accept("job-3")):
        journal.write(record)
    ear = Ear()

    journal.start(asyncio.get_running_loop(), ear)
    await ear.wait_accepted("job-3")

    refused = [report.record for report in ear.heard if isinstance(report, RecordRefused)]
    assert refused == [twin, an_accept("job-\ud800")]
    assert journal.status.pending_records == 0
    await asyncio.to_thread(journal.close)
    assert unfinished_ids(what_is_left(tmp_path)) == ["job-1", "job-2", "job-3"]


async def test_a_finish_may_be_written_again_and_changes_nothing(tmp_path: Path) -> None:
    first, again = a_finish("job-1", frames=b"first"), a_finish("job-1", frames=b"again")
    async with a_running_journal(tmp_path) as (journal, ear):
        for record in (an_accept("job-1"), first, again, a_finish("unknown")):
            journal.write(record)
        await ear.wait_finished("job-1", "unknown")

    restored = what_is_left(tmp_path)

    assert [task.finish for task in restored.finished] == [first]
    assert isinstance(restored.finished[0], FinishedTask)


async def test_close_writes_what_waits_and_then_takes_nothing(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path, Durability.FULL)
    journal.start(asyncio.get_running_loop(), Ear())
    for number in range(300):
        journal.write(an_accept(f"job-{number}"))

    unwritten = await asyncio.to_thread(journal.close)

    assert unwritten == 0
    assert journal.write(an_accept("late")) is NotTaken.CLOSED
    assert len(what_is_left(tmp_path).unfinished) == 300
    assert journal.close() == 0


def test_the_writer_outlives_a_loop_that_has_gone(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path, Durability.FULL)
    loop = asyncio.new_event_loop()
    loop.close()
    journal.start(loop, Ear())
    journal.write(an_accept("job-1"))

    unwritten = journal.close()

    assert unwritten == 0
    assert unfinished_ids(what_is_left(tmp_path)) == ["job-1"]


def test_ten_thousand_waiting_tasks_are_all_restored(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path, Durability.NORMAL)
    names = [f"job-{number}" for number in range(10_000)]
    for name in names:
        assert journal.write(an_accept(name, body=b"x" * 500)) is None
    loop = asyncio.new_event_loop()
    journal.start(loop, Ear())
    journal.close()
    loop.close()

    restored = what_is_left(tmp_path)

    assert unfinished_ids(restored) == names
