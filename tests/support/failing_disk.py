"""Takes a journal through the failure of its disk and back, and prints what came of it as one line of JSON.

Run as `python -m tests.support.failing_disk HOW STATE_DIR [for-good]`, in a process of its own, for HOW it fails:
`full` fills the file system of STATE_DIR, `limit` uses RLIMIT_FSIZE, `fsync` asks the preloaded fsync_fault library.
"""

import asyncio
import contextlib
import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from supervisor.runtime.journal.journal import Journal
from supervisor.runtime.journal.records import CommitFailed, Durability, WritableAgain
from supervisor.runtime.journal.writer import Pace
from tests.support.journals import Ear, a_finish, an_accept, finished_ids, unfinished_ids, what_is_left

LARGE_BODY = b"x" * 300_000
LIMIT_BYTES = 1024
PROBE_INTERVAL_S = {"full": 1.0, "limit": 0.02, "fsync": 0.02}
"""On a full disk a small probe may succeed: the first look at the broken journal has to come before it."""


def fill_up(state_dir: Path) -> None:
    with (state_dir / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(b"x" * 4096)


def limit_files(state_dir: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, resource.RLIM_INFINITY))


def fail_fsync(state_dir: Path) -> None:
    Path(os.environ["FSYNC_FAULT_FLAG"]).touch()


def make_room(state_dir: Path) -> None:
    (state_dir / "filler").unlink()


def lift_limit(state_dir: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def await_fsync(state_dir: Path) -> None:
    """It mends itself after some failures, so that the journal is closed and opened on a disk that still fails."""


BREAK: dict[str, Callable[[Path], None]] = {"full": fill_up, "limit": limit_files, "fsync": fail_fsync}
HEAL: dict[str, Callable[[Path], None]] = {"full": make_room, "limit": lift_limit, "fsync": await_fsync}


async def _go_through(how: str, state_dir: Path, *, is_for_good: bool) -> dict[str, object]:
    # Without idle time the log is not cut before the disk breaks: the void batch is written behind older ones.
    pace = Pace(probe_interval_s=PROBE_INTERVAL_S[how], idle_s=60)
    journal, _ = Journal.open(state_dir, Durability.FULL, pace=pace)
    ear = Ear()
    journal.start(asyncio.get_running_loop(), ear)
    journal.write(an_accept("before"))
    journal.write(an_accept("runs"))
    await ear.wait_accepted("before", "runs")
    BREAK[how](state_dir)
    journal.write(an_accept("void", body=LARGE_BODY))
    failed = await ear.wait_for(CommitFailed)
    story: dict[str, object] = {
        "fault": failed.fault,
        "rejected": failed.rejected,
        "newcomer": journal.write(an_accept("newcomer")),
        "finish": journal.write(a_finish("runs")),
        "writable_while_broken": journal.status.is_writable,
        "finished_while_broken": list(ear.finished),
    }
    if is_for_good:
        return story | {"unwritten": await asyncio.to_thread(journal.close)}
    HEAL[how](state_dir)
    await ear.wait_for(WritableAgain)
    story["finished_when_well"] = list(ear.finished)
    story["void_in_log"] = LARGE_BODY[:1000] in (state_dir / "journal-wal").read_bytes()
    journal.write(an_accept("after"))
    await ear.wait_accepted("after")
    story["unwritten"] = await asyncio.to_thread(journal.close)
    restored = what_is_left(state_dir)
    return story | {"left": unfinished_ids(restored), "ended": finished_ids(restored)}


if __name__ == "__main__":
    is_for_good = "for-good" in sys.argv[3:]
    print(json.dumps(asyncio.run(_go_through(sys.argv[1], Path(sys.argv[2]), is_for_good=is_for_good))))
