"""What happened to tasks, their runs and their records. See `events`."""

from msgspec import Struct

from supervisor.core.tasks import Task
from supervisor.wire.codes import FinishReason


class TaskSubmitted(Struct, frozen=True):
    """A parsed, authenticated task. Its `job_id` is fresh and serves as the ticket of the answer."""

    task: Task


class TokensCounted(Struct, frozen=True):
    """The engine tokenized the prompt; None where it could not within its time."""

    job_id: str
    tokens: int | None


class AcceptsCommitted(Struct, frozen=True):
    """These records are on disk, in this order."""

    job_ids: tuple[str, ...]


class AcceptsFailed(Struct, frozen=True):
    """These records did not reach the disk."""

    job_ids: tuple[str, ...]


class FinishesCommitted(Struct, frozen=True):
    """These ends are on disk and their terminal frames published; `log_bytes` is what each stream keeps in memory."""

    job_ids: tuple[str, ...]
    log_bytes: tuple[int, ...]


class JournalChanged(Struct, frozen=True):
    """The disk takes records, or does not any more."""

    is_writable: bool
    cause: str | None


class CancelRequested(Struct, frozen=True):
    """A caller wants a task ended. The answer goes to `ticket`."""

    ticket: str
    job_id: str


class ReadersLeft(Struct, frozen=True):
    """The last reader of a task's stream is gone."""

    job_id: str


class ReadersCame(Struct, frozen=True):
    """A task's stream has a reader again."""

    job_id: str


class FirstTokenCame(Struct, frozen=True):
    """The engine gave the first token of a run."""

    run_id: int


class RunFinished(Struct, frozen=True):
    """The engine said that the answer is complete. `tokens_cached` of the prompt were taken from KV that was there."""

    run_id: int
    finish_reason: FinishReason
    tokens_in: int | None
    tokens_out: int
    emitted: int
    decode_ms: float
    tokens_cached: int = 0


class RunFailed(Struct, frozen=True):
    """A run ended without the engine's end. `is_client_fault`: the engine refused the request itself.

    `is_worker_lost`: the connection or the process is gone, so another worker may do better. `is_busy`: the engine has
    no room for it now. `is_unseen`: the request never reached the worker that is lost, so that the task cannot have
    been its end. `reason` is a fixed word.
    """

    run_id: int
    reason: str
    message: str
    emitted: int
    is_client_fault: bool = False
    is_worker_lost: bool = False
    is_busy: bool = False
    is_unseen: bool = False


class RunStalled(Struct, frozen=True):
    """No token came for the idle or the first-token bound."""

    run_id: int
    which: str


class RunAborted(Struct, frozen=True):
    """The answer to AbortRun: nothing more of this run will reach a stream."""

    run_id: int
    tokens_in: int | None
    tokens_out: int
    emitted: int
    decode_ms: float


class SlotsSeenIdle(Struct, frozen=True):
    """The engine no longer works on these aborted runs."""

    pool_id: str
    incarnation: int
    run_ids: tuple[int, ...]


class SlotStuck(Struct, frozen=True):
    """The engine still works on an aborted run after its time."""

    pool_id: str
    incarnation: int
    run_id: int


class SessionEndRequested(Struct, frozen=True):
    """A caller is done with a session: its KV is to be evicted."""

    tenant: str
    session: bytes


class TasksRestored(Struct, frozen=True):
    """Read from the journal at start: unfinished tasks in their old order; finished ones, oldest first.

    Each finished one comes with the bytes that its stream keeps. An unfinished one comes with its runs so far and the
    tokens that it is known to have emitted; `silent` names those that are known to have emitted none.
    """

    unfinished: tuple[Task, ...]
    finished: tuple[tuple[Task, int], ...]
    silent: tuple[str, ...] = ()


class TimePassed(Struct, frozen=True):
    """The moment that `next_due_ms` named has come."""
