"""Takes a journal through a whole story again and again, each time killed at, or failed by, another system call.

Run as `python -m tests.support.crash_points LIBRARY FOLDER TIMES`, in a process that LIBRARY (crash_point.c) is
preloaded into. Each story is a fork; the parent reads what was acknowledged, opens what is left, and judges it. Each
kind of call is met at least TIMES times in each way, spread over the story. Prints one line of JSON: how often each
kind of end was met. Exits with an AssertionError where a promise was broken.
"""

import asyncio
import ctypes
import errno
import json
import os
import shutil
import signal
import sys
import traceback
from collections import Counter
from enum import IntEnum
from pathlib import Path
from typing import NoReturn

from supervisor.runtime.journal.faults import JournalError
from supervisor.runtime.journal.journal import Journal
from supervisor.runtime.journal.records import (
    CommitFailed,
    Committed,
    Durability,
    ForgetRecord,
    JournalDied,
    Record,
    RecordRefused,
    Report,
    WritableAgain,
)
from supervisor.runtime.journal.writer import Pace
from tests.support.journals import a_finish, an_accept, an_attempt, finished_ids, unfinished_ids, what_is_left

TASKS = 9
FORGOTTEN = "job-0"
OLD_TASKS = 5
PACE = Pace(probe_interval_s=0.01, idle_s=0.002, checkpoint_bytes=40_000)
FAILURES = (1, 3)
EXIT_REFUSED, EXIT_MENDED, EXIT_UNMET = 3, 4, 5
ENDS = {-signal.SIGKILL: "killed", EXIT_REFUSED: "refused at open", EXIT_MENDED: "survived", EXIT_UNMET: "not met"}
POINTS_MAX = 4_095
HARMLESS_IN_A_ROW = 3
STORIES = ("new", "damaged")


class How(IntEnum):
    """As in crash_point.c."""

    BEFORE = 1
    AFTER = 2
    HALF = 3
    FAIL = 4


class Call(IntEnum):
    """Kinds of system calls, as in crash_point.c."""

    WRITE = 0
    SYNC = 1
    CUT = 2
    RENAME = 3
    REMOVE = 4


class Teller:
    """Plays the story; every acknowledgement goes into the pipe before anything else happens."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._journal: Journal | None = None
        self._changed = asyncio.Event()
        self._settled: set[tuple[str, str]] = set()
        self._rejected: set[str] = set()
        self._is_writable = True

    def _hear(self, report: Report) -> None:
        match report:
            case Committed(accepted=accepted, finished=finished):
                for verb, job_ids in (("accepted", accepted), ("finished", finished)):
                    for job_id in job_ids:
                        os.write(self._pipe, f"{verb} {job_id}\n".encode())
                        self._settled.add((verb, job_id))
            case CommitFailed(rejected=rejected):
                self._is_writable = False
                self._rejected.update(rejected)
            case WritableAgain():
                self._is_writable = True
            case RecordRefused() | JournalDied():
                raise AssertionError(report)
        self._changed.set()

    async def _wait(self, verb: str, job_id: str) -> bool:
        """True: settled; False: rejected."""
        while (verb, job_id) not in self._settled:
            if verb == "accepted" and job_id in self._rejected:
                self._rejected.discard(job_id)
                return False
            self._changed.clear()
            await self._changed.wait()
        return True

    async def _write(self, record: Record) -> None:
        assert self._journal is not None
        while self._journal.write(record) is not None:
            self._changed.clear()
            await self._changed.wait()

    async def _accept(self, job_id: str) -> None:
        while True:
            await self._write(an_accept(job_id, job_id.encode() * 300))
            if await self._wait("accepted", job_id):
                return

    async def tell(self, state_dir: Path) -> None:
        self._journal, _ = Journal.open(state_dir, Durability.FULL, pace=PACE)
        self._journal.start(asyncio.get_running_loop(), self._hear)
        for number in range(TASKS):
            name = f"job-{number}"
            await self._accept(name)
            await self._write(an_attempt(name, 1))
            if number % 3 != 2:
                await self._write(a_finish(name, frames=name.encode() * 200))
                await self._wait("finished", name)
        os.write(self._pipe, f"forget {FORGOTTEN}\n".encode())
        await self._write(ForgetRecord(job_ids=(FORGOTTEN,)))
        await self._accept("last")
        assert await asyncio.to_thread(self._journal.close) == 0


def prepare(state_dir: Path, story: str) -> set[str]:
    """What stands on disk before: nothing, or a damaged journal; gives the jobs that must be there in any case."""
    state_dir.mkdir(mode=0o700)
    if story == "new":
        return set()
    journal, _ = Journal.open(state_dir, Durability.FULL)
    names = [f"old-{number}" for number in range(OLD_TASKS)]
    for name in names:
        journal.write(an_accept(name, name.encode() * 2_000))
    loop = asyncio.new_event_loop()
    journal.start(loop, lambda _: None)
    journal.close()
    loop.close()
    content = (state_dir / "journal").read_bytes()
    spoiled = content.rindex(b"old-2old-2")
    (state_dir / "journal").write_bytes(content[:spoiled] + b"\xff" + content[spoiled + 1 :])
    return set(names) - {"old-2"}


def judge(state_dir: Path, told: list[list[str]], must_have: set[str]) -> None:
    """By what was told alone: nothing acknowledged is lost, nothing is there twice or altered."""
    restored = what_is_left(state_dir)
    unfinished, finished = set(unfinished_ids(restored)), set(finished_ids(restored))
    forgotten = {job_id for verb, job_id in told if verb == "forget"}
    accepted = {job_id for verb, job_id in told if verb == "accepted"}
    ended = {job_id for verb, job_id in told if verb == "finished"}
    assert unfinished & finished == set()
    assert accepted - forgotten <= unfinished | finished, (accepted, unfinished, finished)
    assert ended - forgotten <= finished, (ended, finished)
    assert must_have <= unfinished | finished, (must_have, unfinished)
    for task in restored.unfinished:
        name = task.accept.job_id
        assert task.accept.body == name.encode() * (2_000 if name.startswith("old") else 300)


class Stage:
    """Plays stories with one fault each, and counts what came of them."""

    def __init__(self, library: ctypes.CDLL, folder: Path) -> None:
        self._library = library
        self._state_dir = folder / "state"
        self.found: Counter[str] = Counter()

    def play(self, story: str, how: How, call: Call, point: int, failures: int) -> bool:
        """False: the story ended before the fault was met."""
        must_have = prepare(self._state_dir, story)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            self._act(how, call, point, failures, writer)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            told = [line.split() for line in pipe.read().splitlines()]
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        where = f"story {story}, {how.name} {call.name} {point}, status {status}"
        assert status in ENDS, where
        try:
            judge(self._state_dir, told, must_have)
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from error
        shutil.rmtree(self._state_dir)
        if status != EXIT_UNMET:
            self.found[f"{how.name} {call.name}: {ENDS[status]}".lower()] += 1
        return status != EXIT_UNMET

    def _act(self, how: How, call: Call, point: int, failures: int, pipe: int) -> NoReturn:
        self._library.crash_arm(str(self._state_dir).encode(), int(how), int(call), point, failures, errno.EIO)
        try:
            asyncio.run(Teller(pipe).tell(self._state_dir))
        except JournalError:
            os._exit(EXIT_REFUSED)
        except Exception:  # noqa: BLE001  (a child never returns into its parent's code)
            traceback.print_exc()
            os._exit(1)
        os._exit(EXIT_UNMET if self._library.crash_calls() < point else EXIT_MENDED)

    def sweep(self, how: How, call: Call, times: int) -> None:
        """At least so many faults of this kind, spread over both stories."""
        met = 0
        lengths = {story: self._calls_in(story, call) for story in STORIES}
        points = [(story, point) for story, length in lengths.items() for point in range(1, length + 1)]
        stride = max(1, len(points) // times)
        while points and met < times:
            for story, point in points[met % stride :: stride]:
                met += self.play(story, how, call, point, FAILURES[met % len(FAILURES)])

    def sweep_open(self, story: str, call: Call) -> None:
        """Every such call that the opening of a journal makes fails once: it is refused, and whole at the next try.

        A few of them may fail without harm, as that which names the holder of the lock.
        """
        kind = f"fail {call.name}: {ENDS[EXIT_REFUSED]}".lower()
        point = harmless = 0
        while harmless < HARMLESS_IN_A_ROW:
            refused = self.found[kind]
            point += 1
            self.play(story, How.FAIL, call, point, 1)
            harmless = harmless + 1 if self.found[kind] == refused else 0

    def _calls_in(self, story: str, call: Call) -> int:
        """How many calls of this kind the undisturbed story makes; the writer's thread may add some now and then."""
        low, high = 0, POINTS_MAX
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._is_reached(story, call, middle) else (low, middle - 1)
        return low

    def _is_reached(self, story: str, call: Call, point: int) -> bool:
        before = self.found.copy()
        is_reached = self.play(story, How.BEFORE, call, point, 1)
        self.found = before
        return is_reached


def main(library_path: str, folder: str, times: int) -> None:
    """Every kind of call in every way."""
    stage = Stage(ctypes.CDLL(library_path), Path(folder))
    for call in Call:
        for how in How:
            if how is not How.HALF or call is Call.WRITE:
                stage.sweep(how, call, times)
    for story in STORIES:
        for call in (Call.WRITE, Call.SYNC):
            stage.sweep_open(story, call)
    print(json.dumps(stage.found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
