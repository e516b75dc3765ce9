"""Many tasks through one journal, of which few are kept at a time: how large do its files get?"""

import asyncio
from collections import deque
from pathlib import Path

from supervisor.runtime.journal.journal import Journal
from supervisor.runtime.journal.records import Durability, ForgetRecord
from supervisor.runtime.journal.writer import Pace
from tests.support.journals import Ear, a_finish, an_accept

BATCH = 100
BODY = b"x" * 2_000
FRAMES = b"y" * 4_000


async def turn_over(state_dir: Path, *, tasks: int, kept: int) -> list[int]:
    """The bytes on disk after each batch; `kept` finished tasks are remembered at a time."""
    journal, _ = Journal.open(state_dir, Durability.NORMAL, pace=Pace(idle_s=0.05))
    ear = Ear()
    journal.start(asyncio.get_running_loop(), ear)
    remembered: deque[str] = deque()
    sizes = []
    for first in range(0, tasks, BATCH):
        names = [f"job-{number}" for number in range(first, first + BATCH)]
        for name in names:
            journal.write(an_accept(name, BODY))
            journal.write(a_finish(name, frames=FRAMES))
        await ear.wait_finished(*names)
        ear.heard.clear()
        remembered.extend(names)
        forgotten = tuple(remembered.popleft() for _ in range(max(0, len(remembered) - kept)))
        if forgotten:
            journal.write(ForgetRecord(job_ids=forgotten))
        sizes.append(_bytes_in(state_dir))
    await asyncio.to_thread(journal.close)
    return sizes


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())
