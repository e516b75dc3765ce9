"""Builders of journal records, and an ear on what a journal reports."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from supervisor.runtime.journal.inbox import Bounds
from supervisor.runtime.journal.journal import Journal
from supervisor.runtime.journal.records import (
    AcceptRecord,
    AttemptRecord,
    Committed,
    Durability,
    FinishRecord,
    FinishState,
    Report,
    Restored,
)
from supervisor.runtime.journal.writer import Pace

T = TypeVar("T")
QUICK = Pace(probe_interval_s=0.01, idle_s=0.01)


def an_accept(job_id: str, body: bytes = b'{"prompt":"hello"}') -> AcceptRecord:
    return AcceptRecord(
        job_id=job_id,
        tenant="tenant-1",
        task_id=f"task-of-{job_id}",
        session_id="session-1",
        priority="interactive",
        body=body,
        body_digest=hashlib.sha256(body).digest(),
        accepted_wall_ms=1_700_000_000_000,
        deadline_wall_ms=1_700_000_060_000,
        queue_position=3,
        predicted_start_ms=None,
    )


def an_attempt(job_id: str, attempt: int) -> AttemptRecord:
    return AttemptRecord(job_id=job_id, attempt=attempt, wall_ms=1_700_000_001_000 + attempt)


def a_finish(job_id: str, *, finished_wall_ms: int = 1_700_000_002_000, frames: bytes = b"id: 1\n\n") -> FinishRecord:
    return FinishRecord(
        job_id=job_id,
        finished_wall_ms=finished_wall_ms,
        state=FinishState.ENDED,
        summary=b'{"text":"hi"}',
        frames=frames,
    )


class Ear:
    """Keeps every report, and wakes whoever waits for one."""

    def __init__(self) -> None:
        self.heard: list[Report] = []
        self._changed = asyncio.Event()

    def __call__(self, report: Report) -> None:
        self.heard.append(report)
        self._changed.set()

    async def wait_until(self, is_enough: Callable[[], bool]) -> None:
        while not is_enough():
            self._changed.clear()
            await self._changed.wait()

    async def wait_for(self, kind: type[T]) -> T:
        await self.wait_until(lambda: any(isinstance(report, kind) for report in self.heard))
        return next(report for report in self.heard if isinstance(report, kind))

    async def wait_accepted(self, *job_ids: str) -> None:
        await self.wait_until(lambda: set(job_ids) <= set(self.accepted))

    async def wait_finished(self, *job_ids: str) -> None:
        await self.wait_until(lambda: set(job_ids) <= set(self.finished))

    @property
    def accepted(self) -> list[str]:
        return [job_id for report in self.heard if isinstance(report, Committed) for job_id in report.accepted]

    @property
    def finished(self) -> list[str]:
        return [job_id for report in self.heard if isinstance(report, Committed) for job_id in report.finished]


@asynccontextmanager
async def a_running_journal(
    state_dir: Path,
    *,
    bounds: Bounds | None = None,
    durability: Durability = Durability.FULL,
    before_start: Callable[[], None] = lambda: None,
) -> AsyncIterator[tuple[Journal, Ear]]:
    journal, _ = Journal.open(state_dir, durability, bounds=bounds, pace=QUICK)
    before_start()
    ear = Ear()
    journal.start(asyncio.get_running_loop(), ear)
    try:
        yield journal, ear
    finally:
        await asyncio.to_thread(journal.close)


def what_is_left(state_dir: Path) -> Restored:
    """Open the journal as a restarted daemon would, and close it."""
    journal, restored = Journal.open(state_dir, Durability.FULL)
    journal.close()
    return restored


def files_holding(state_dir: Path, secret: bytes) -> list[str]:
    return [file.name for file in state_dir.iterdir() if secret in file.read_bytes()]


def unfinished_ids(restored: Restored) -> list[str]:
    return [task.accept.job_id for task in restored.unfinished]


def finished_ids(restored: Restored) -> list[str]:
    return [task.accept.job_id for task in restored.finished]
