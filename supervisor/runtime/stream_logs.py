"""The task logs of the daemon by job id: made at the first need, restored from the journal at the first look.

A waiting task without a reader has none; a finished task of an earlier daemon is kept as the bytes that the journal
had until somebody reads it. Tells the core when the readers of a task come and go.
"""

from collections.abc import Callable

from supervisor.core.effects import DropLogs
from supervisor.core.events import Event, ReadersCame, ReadersLeft
from supervisor.runtime.progress import Delivered, ProgressTable
from supervisor.runtime.tasklog import TaskLog


class StreamLogs:
    """Owns every TaskLog."""

    def __init__(self, post: Callable[[Event], None], progress: ProgressTable) -> None:
        self._post = post
        self._progress = progress
        self._logs: dict[str, TaskLog] = {}
        self._frozen: dict[str, bytes] = {}

    def restore(self, job_id: str, frames: bytes) -> None:
        """Take over the stream of a task that finished under an earlier daemon."""
        self._frozen[job_id] = frames

    def resume(self, job_id: str, delivered: Delivered) -> None:
        """Go on with the stream of a task that ran under an earlier daemon, which delivered so much of it."""
        self._logs[job_id] = TaskLog.owing(job_id, delivered, self._note_readers)

    def begin(self, job_id: str, attempt: int) -> TaskLog:
        """The log of a task whose run begins: from now on a crash leaves behind how much of it was delivered."""
        log = self.open(job_id)
        log.track = self._progress.claim(job_id, attempt, is_fresh=not log.tokens)
        return log

    def settle(self, job_ids: tuple[str, ...]) -> None:
        """The ends of these tasks are on disk: a crash need leave nothing of them behind."""
        for job_id in job_ids:
            self._progress.release(job_id)

    def open(self, job_id: str) -> TaskLog:
        """The log of a task, made where there is none."""
        log = self._logs.get(job_id)
        if log is None:
            frames = self._frozen.pop(job_id, None)
            log = TaskLog(job_id, self._note_readers) if frames is None else TaskLog.from_frames(job_id, frames)
            self._logs[job_id] = log
        return log

    def find(self, job_id: str) -> TaskLog | None:
        """The log of a task, if there is one."""
        return self.open(job_id) if job_id in self._frozen else self._logs.get(job_id)

    def thawed(self, job_id: str) -> TaskLog | None:
        """The log of a task, unless nobody has looked at it since an earlier daemon finished it."""
        return self._logs.get(job_id)

    def drop(self, job_id: str) -> None:
        """Free a finished stream. Who reads it now reads on."""
        self._logs.pop(job_id, None)
        self._frozen.pop(job_id, None)

    def drop_all(self, effect: DropLogs) -> None:
        """Free the streams whose retention is over."""
        for job_id in effect.job_ids:
            self.drop(job_id)

    def _note_readers(self, job_id: str, count: int) -> None:
        self._post(ReadersCame(job_id) if count else ReadersLeft(job_id))
