"""Coming to rest before the daemon replaces itself: nothing new is dispatched, what runs may end, engines go on.

1. At rest: nothing runs, every record is on disk, and no engine is being started or stopped.
2. At the deadline a strict task may be cut: the next daemon runs it again, and its stream goes on without a gap.
3. A best-effort task that still runs then cannot be cut: the rest is refused, and everything goes on.
Tasks are admitted all the while. A daemon that is told to stop does not come to rest.
"""

from supervisor.core.agenda import Alarm
from supervisor.core.effects import CompleteQuiesce, RefuseQuiesce
from supervisor.core.events import QuiesceEnded, QuiesceRequested
from supervisor.core.lifecycle import Phase
from supervisor.core.state import State

_IN_HAND = (Phase.SPAWNING, Phase.STOPPING)
"""A process is known only in part while one of these moves is under way; both have bounds of their own."""


def begin(state: State, event: QuiesceRequested, now_ms: float) -> None:
    """Come to rest within `deadline_ms`; the answer is one of two effects."""
    state.quiesce_deadline_ms = now_ms + event.deadline_ms
    state.agenda.add(state.quiesce_deadline_ms, Alarm.QUIESCE_DEADLINE, "")


def end(state: State, _event: QuiesceEnded | None = None, _now_ms: float = 0.0) -> None:
    """Go on: every set may have a move. Harmless where nothing was asked for."""
    state.quiesce_deadline_ms = None
    state.is_quiet = False
    state.dirty.update(state.sets)


def find_unrest(state: State) -> str | None:
    """Why the daemon cannot go at this moment, though it came to rest; None where it can."""
    if state.halt_deadline_ms is not None:
        return "the daemon was told to stop"
    if not state.is_quiet:
        return "it is not at rest"
    if any(replica.phase in _IN_HAND for replica in state.replicas.values()):
        return "a worker is being started or stopped"
    return "records are on their way to the disk" if state.writes_pending or state.counting else None


def settle(state: State, now_ms: float) -> None:
    """See whether the answer is known."""
    if state.quiesce_deadline_ms is None or state.is_quiet:
        return
    if state.halt_deadline_ms is not None:
        _refuse(state, 0)
    elif any(replica.phase in _IN_HAND for replica in state.replicas.values()):
        return
    elif now_ms >= state.quiesce_deadline_ms:  # 2, 3
        kept = sum(not state.tasks[job_id].is_strict for job_id in state.runs.values())
        _refuse(state, kept) if kept else _complete(state)
    elif not state.runs and not state.writes_pending and not state.counting:  # 1
        _complete(state)


def _complete(state: State) -> None:
    state.is_quiet = True
    state.out.append(CompleteQuiesce(cut=len(state.runs)))


def _refuse(state: State, kept: int) -> None:
    end(state)
    state.out.append(RefuseQuiesce(kept))
