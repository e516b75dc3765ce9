"""What the HTTP edge asks of the daemon. The runtime implements it; the edge parses, authenticates and translates."""

from collections.abc import AsyncIterator
from typing import Protocol

from supervisor.core.refusals import Refused
from supervisor.runtime.caller import Caller
from supervisor.runtime.tasklog import TaskLog
from supervisor.wire.pools import HostStatus, PoolChange, PoolHealth, ReplicaSetPage
from supervisor.wire.sessions import SessionPage, SessionView
from supervisor.wire.tasks import Accepted, SubmitTask, TaskPage, TaskView

__all__ = ["Caller", "Service"]


class Service(Protocol):
    """The daemon as the edge sees it. Refusals are values; nothing here raises for a caller's mistake."""

    async def submit(self, caller: Caller, task: SubmitTask, size_bytes: int) -> Accepted | Refused:
        """Admit a task and wait until it is on disk. `size_bytes` is the length of the request body."""

    async def cancel(self, caller: Caller, task_id: str) -> int | Refused:
        """Cancel a task, waiting, running or finished; gives the number of token frames it ever emitted."""

    def task(self, caller: Caller, task_id: str) -> TaskView | Refused:
        """One task of the caller."""

    def tasks(self, caller: Caller, limit: int) -> TaskPage:
        """The caller's tasks, newest first."""

    def stream(self, caller: Caller, task_id: str) -> TaskLog | Refused:
        """The log of a task's stream, live or finished; INVALID_PARAMS with reason not_found or expired."""

    def session(self, caller: Caller, session_id: str) -> SessionView | Refused:
        """One session of the caller."""

    def sessions(self, caller: Caller, limit: int) -> SessionPage:
        """The caller's sessions, last used first."""

    def delete_session(self, caller: Caller, session_id: str) -> Refused | None:
        """End a session and evict its KV. None: it is ended, now or before."""

    def pool_health(self, pool_id: str) -> PoolHealth | Refused:
        """One pool."""

    def replica_sets(self) -> ReplicaSetPage:
        """All replica sets."""

    def status(self) -> HostStatus:
        """The whole host."""

    def drain(self, pool_id: str, deadline_ms: int) -> PoolChange | Refused:
        """Stop dispatching to a pool; what runs after `deadline_ms` ends as WORKER_RESET."""

    def resume(self, pool_id: str) -> PoolChange | Refused:
        """Undo a drain."""

    def pool_log(self, pool_id: str, *, lines: int, follow: bool) -> AsyncIterator[bytes] | Refused:
        """The last lines of the engine's output, and with `follow` what comes after, in pieces."""

    def metrics_page(self) -> bytes:
        """The Prometheus text page."""

    def is_ready(self) -> bool:
        """Whether at least one pool can serve and tasks can be accepted (`/readyz`)."""
