"""Writes tasks to a journal for ever and prints each id once it was acknowledged, to be killed at any moment.

Run as `python -m tests.support.crash_writer STATE_DIR DURABILITY ROUND`. Lines: `accepted ID`, `finished ID`.
"""

import asyncio
import random
import sys
from pathlib import Path

from supervisor.runtime.journal.journal import Journal
from supervisor.runtime.journal.records import Committed, Durability, Report
from supervisor.runtime.journal.writer import Pace
from tests.support.journals import a_finish, an_accept, an_attempt

WAITING_MAX = 64
BODY_BYTES_MAX = 20_000


class CrashWriter:
    def __init__(self, journal: Journal, run: int) -> None:
        self._journal = journal
        self._run = run
        self._random = random.Random(run)
        self._count = 0

    def fill(self) -> None:
        for _ in range(WAITING_MAX):
            self._write_next()

    def hear(self, report: Report) -> None:
        assert isinstance(report, Committed), report
        lines = [f"accepted {job_id}" for job_id in report.accepted] + [f"finished {job}" for job in report.finished]
        if lines:  # a batch may hold nothing but attempts
            print("\n".join(lines), flush=True)
        for job_id in report.accepted:
            self._journal.write(an_attempt(job_id, 1))
            if self._random.random() < 0.5:
                self._journal.write(a_finish(job_id, frames=self._random.randbytes(200)))
            self._write_next()

    def _write_next(self) -> None:
        self._count += 1
        body = self._random.randbytes(self._random.randrange(BODY_BYTES_MAX))
        assert self._journal.write(an_accept(f"run-{self._run}-job-{self._count}", body)) is None


async def _write_for_ever(state_dir: Path, durability: Durability, run: int) -> None:
    journal, _ = Journal.open(state_dir, durability, pace=Pace(checkpoint_bytes=300_000))
    writer = CrashWriter(journal, run)
    journal.start(asyncio.get_running_loop(), writer.hear)
    writer.fill()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_write_for_ever(Path(sys.argv[1]), Durability(sys.argv[2]), int(sys.argv[3])))
