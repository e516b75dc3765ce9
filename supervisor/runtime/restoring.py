"""Puts together what an earlier daemon left: tasks from the journal, and from the progress table how far they were.

Decides nothing: the core hears of it in one event, and the streams are made ready to go on.
"""

from supervisor.core.events import TasksRestored
from supervisor.runtime.journal.records import Restored
from supervisor.runtime.progress import ProgressTable
from supervisor.runtime.stream_logs import StreamLogs
from supervisor.runtime.task_codec import restore_finished, restore_unfinished


def take_up(restored: Restored, progress: ProgressTable, logs: StreamLogs, now_ms: float) -> TasksRestored:
    """The event for the core. Finished streams are readable, unfinished ones owe what was delivered of them."""
    finished = []
    for ended in restored.finished:
        logs.restore(ended.accept.job_id, ended.finish.frames)
        finished.append((restore_finished(ended, now_ms), len(ended.finish.frames)))
    progress.keep_only({begun.accept.job_id for begun in restored.unfinished})
    found = progress.found
    for job_id, delivered in found.items():
        logs.resume(job_id, delivered)
    return TasksRestored(
        unfinished=tuple(
            restore_unfinished(begun, found.get(begun.accept.job_id), now_ms) for begun in restored.unfinished
        ),
        finished=tuple(finished),
        silent=tuple(job_id for job_id, delivered in found.items() if not delivered.tokens),
    )
