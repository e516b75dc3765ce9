"""Tells a journal a story under power_trace.c: tasks accepted, run, ended and forgotten; each ack is a line in `acks`.

Run as `python -m tests.support.power_writer STATE_DIR`. The acks lie beside the journal, so that they are in the trace.
"""

import asyncio
import os
import sys
from pathlib import Path

from supervisor.runtime.journal.journal import Journal
from supervisor.runtime.journal.records import Committed, Durability, ForgetRecord, Report
from supervisor.runtime.journal.writer import Pace
from tests.support.journals import Ear, a_finish, an_accept, an_attempt
from tests.support.power_loss import ACKS

TASKS = 24
TOGETHER = 3
PACE = Pace(idle_s=0.002, checkpoint_bytes=60_000)


async def tell(state_dir: Path) -> None:
    """The story. A forgotten task is said to be so before it is asked for."""
    journal, _ = Journal.open(state_dir, Durability.FULL, pace=PACE)
    acks = os.open(state_dir / ACKS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    ear = Ear()

    def hear(report: Report) -> None:
        if isinstance(report, Committed):
            words = [("accepted", each) for each in report.accepted] + [("finished", each) for each in report.finished]
            os.write(acks, "".join(f"{verb} {job_id}\n" for verb, job_id in words).encode())
        ear(report)

    journal.start(asyncio.get_running_loop(), hear)
    for first in range(0, TASKS, TOGETHER):
        names = [f"job-{number}" for number in range(first, first + TOGETHER)]
        for name in names:
            journal.write(an_accept(name, name.encode() * 400))
        await ear.wait_accepted(*names)
        journal.write(an_attempt(names[0], 1))
        journal.write(a_finish(names[0], frames=names[0].encode() * 300))
        await ear.wait_finished(names[0])
    os.write(acks, b"forgotten job-0\n")
    journal.write(ForgetRecord(job_ids=("job-0",)))
    journal.write(an_accept("last"))
    await ear.wait_accepted("last")
    await asyncio.to_thread(journal.close)


if __name__ == "__main__":
    asyncio.run(tell(Path(sys.argv[1])))
