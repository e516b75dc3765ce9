"""Between the core's effects and the journal: records go in, what became of them comes back as events.

The terminal frame of a task is published when the record of its end is on disk. Where the disk fails, running tasks go
on and their ends are published all the same: the journal keeps the record and writes it when the disk returns.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from supervisor.core import events as ev
from supervisor.core.effects import CommitAccept, CommitAttempt, CommitFinish, Forget
from supervisor.core.tasks import Outcome, Task
from supervisor.runtime.envelopes import envelope
from supervisor.runtime.journal.journal import Journal
from supervisor.runtime.journal.records import (
    AttemptRecord,
    CommitFailed,
    Committed,
    Damage,
    FinishRecord,
    ForgetRecord,
    JournalDied,
    RecordRefused,
    Report,
    WritableAgain,
)
from supervisor.runtime.outputs import OutputShelf
from supervisor.runtime.stream_logs import StreamLogs
from supervisor.runtime.task_codec import accept_record, finish_record, wall_ms
from supervisor.wire.codes import FinishReason
from supervisor.wire.frames import End, end_frame, error_frame

log = logging.getLogger(__name__)


class Journaling:
    """Performs the Commit effects."""

    def __init__(
        self,
        journal: Journal,
        logs: StreamLogs,
        post: Callable[[ev.Event], None],
        now_ms: Callable[[], float],
        outputs: OutputShelf,
        note_damage: Callable[[Damage], None],
    ) -> None:
        self._journal = journal
        self._logs = logs
        self._post = post
        self._now_ms = now_ms
        self._note_damage = note_damage
        self._outputs = outputs
        self._terminal: dict[str, bytes] = {}
        self._is_writable = True
        self._requests: dict[str, bytes] = {}

    @contextmanager
    def holding(self, job_id: str, request: bytes) -> Iterator[None]:
        """Keep the canonical request of a submitted task until its caller has been answered."""
        self._requests[job_id] = request
        try:
            yield
        finally:
            self._requests.pop(job_id, None)

    def accept(self, effect: CommitAccept) -> None:
        """Write the record of a task; the 202 waits for it."""
        request = self._requests.pop(effect.task.job_id, None)
        if request is None:  # its caller has left before it was decided
            self._post(ev.AcceptsFailed((effect.task.job_id,)))
            return
        if self._journal.write(accept_record(effect.task, request, self._now_ms())) is not None:
            self._post(ev.AcceptsFailed((effect.task.job_id,)))

    def attempt(self, effect: CommitAttempt) -> None:
        """Note that a run begins. Nothing waits for it."""
        self._journal.write(AttemptRecord(job_id=effect.job_id, attempt=effect.attempt, wall_ms=wall_ms()))

    def finish(self, effect: CommitFinish) -> None:
        """Write how a task ended; its last frame waits for that."""
        task = effect.task
        stream = self._logs.open(task.job_id)
        frame = terminal_frame(task, effect.outcome, stream.terminal_seq, self._outputs.take(task.job_id))
        self._terminal[task.job_id] = frame
        taken = self._journal.write(finish_record(task, effect.outcome, stream.dump() + frame))
        if taken is not None:
            log.error("the end of a task is not on disk", extra={"job_id": task.job_id, "cause": str(taken)})
        if taken is not None or not self._is_writable:
            self._publish((task.job_id,))

    def forget(self, effect: Forget) -> None:
        """Delete what is kept of finished tasks."""
        for job_id in effect.job_ids:
            self._logs.drop(job_id)
        self._journal.write(ForgetRecord(job_ids=effect.job_ids))

    def on_report(self, report: Report) -> None:
        """What the journal did, on the loop."""
        match report:
            case Committed(accepted=accepted, finished=finished):
                if accepted:
                    self._post(ev.AcceptsCommitted(accepted))
                self._publish(finished)
                self._logs.settle(finished)
            case CommitFailed(fault=fault, rejected=rejected, detail=detail):
                log.error("the journal cannot be written", extra={"cause": f"{fault}: {detail}"})
                self._note_writable(is_writable=False, cause=str(fault))
                self._reject(rejected)
                self._publish(tuple(self._terminal))
            case RecordRefused(record=record, detail=detail):
                self._note_refused_record(record, detail)
            case WritableAgain(damage=damage):
                log.warning("the journal can be written again")
                if damage is not None:
                    self._note_damage(damage)
                self._note_writable(is_writable=True, cause=None)
            case JournalDied(detail=detail, rejected=rejected):
                log.critical("the journal's writer died", extra={"cause": detail})
                self._note_writable(is_writable=False, cause="the writer died")
                self._reject(rejected)
                self._publish(tuple(self._terminal))

    def _note_writable(self, *, is_writable: bool, cause: str | None) -> None:
        self._is_writable = is_writable
        self._post(ev.JournalChanged(is_writable, cause))

    def _reject(self, job_ids: tuple[str, ...]) -> None:
        if job_ids:
            self._post(ev.AcceptsFailed(job_ids))

    def _note_refused_record(self, record: object, detail: str) -> None:
        job_id = getattr(record, "job_id", "")
        log.error("a record cannot be stored", extra={"job_id": job_id, "cause": detail})
        if isinstance(record, FinishRecord):
            self._publish((job_id,))
        elif job_id and not isinstance(record, AttemptRecord):
            self._reject((job_id,))

    def _publish(self, job_ids: tuple[str, ...]) -> None:
        """Close the streams whose ends are on disk. An end that was published already is left alone."""
        mine = tuple(job_id for job_id in job_ids if job_id in self._terminal)
        sizes = []
        for job_id in mine:
            stream = self._logs.open(job_id)
            stream.close(self._terminal.pop(job_id))
            sizes.append(stream.size_bytes)
        if mine:
            self._post(ev.FinishesCommitted(mine, tuple(sizes)))


def terminal_frame(task: Task, outcome: Outcome, seq: int, outputs: msgspec.Raw | None = None) -> bytes:
    """The `end` or `error` frame of a task. A run whose task was cancelled at its end has outputs that nobody gets."""
    if outcome.error is not None:
        return error_frame(envelope(outcome.error, task.job_id), seq)
    assert outcome.finish_reason is not None
    end = End(
        tokens_out=outcome.tokens_out,
        decode_ms=round(outcome.decode_ms),
        finish_reason=outcome.finish_reason,
        tokens_in=outcome.tokens_in,
        kv_warmth=outcome.kv_warmth,
        kv_migrated=False,
    )
    if outputs is not None and outcome.finish_reason is FinishReason.STOP:
        end.outputs = outputs
    return end_frame(end, seq)
