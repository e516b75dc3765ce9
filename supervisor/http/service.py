"""What the HTTP edge asks of the daemon. The runtime implements it; the edge parses, authenticates and translates."""

from collections.abc import AsyncIterator
from typing import Protocol

from supervisor.core.refusals import Refused
from supervisor.runtime.caller import Caller
from supervisor.runtime.tasklog import TaskLog
from supervisor.wire.leases import LeasePage, LeaseRequest, LeaseView
from supervisor.wire.outlook import ChangeOutlook, OutlookRequest
from supervisor.wire.plan import MemoryPlan
from supervisor.wire.pools import HostStatus, PoolChange, PoolHealth, ReplicaSetPage
from supervisor.wire.rollouts import CanaryRequest, ConfigReloaded, ReloadRequest, RolloutPage, RolloutStarted
from supervisor.wire.self_tests import SelfTestReport
from supervisor.wire.sessions import SessionPage, SessionView
from supervisor.wire.tasks import Accepted, SubmitTask, TaskPage, TaskView
from supervisor.wire.upgrades import UpgradeStatus

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

    async def wishes_stored(self) -> None:
        """Wait until what operators asked for so far would outlive a crash."""

    def pool_health(self, pool_id: str) -> PoolHealth | Refused:
        """One pool."""

    def replica_sets(self) -> ReplicaSetPage:
        """All replica sets."""

    def plan(self) -> MemoryPlan:
        """What fits into the memory of the GPUs."""

    async def outlook(self, request: OutlookRequest) -> ChangeOutlook | Refused:
        """What a change of models or of the configuration would do."""

    def status(self) -> HostStatus:
        """The whole host."""

    def drain(self, pool_id: str, deadline_ms: int) -> PoolChange | Refused:
        """Stop dispatching to a pool; what runs after `deadline_ms` ends as WORKER_RESET."""

    def resume(self, pool_id: str) -> PoolChange | Refused:
        """Undo a drain."""

    async def self_test(self, pool_id: str) -> SelfTestReport | Refused:
        """Test the worker of a pool while it serves (ORCH-3049)."""

    async def take_lease(self, caller: Caller, request: LeaseRequest) -> LeaseView | Refused:
        """Begin a lease of GPUs; they are free once its state is held."""

    def leases(self) -> LeasePage:
        """All leases."""

    def lease(self, lease_id: str) -> LeaseView | Refused:
        """One lease."""

    def end_lease(self, lease_id: str) -> Refused | None:
        """Give a lease back. None: it is over."""

    async def reload_pool(self, pool_id: str, request: ReloadRequest) -> RolloutStarted | Refused:
        """Give a pool another model (ORCH-3031)."""

    async def start_canary(self, pool_id: str, request: CanaryRequest) -> RolloutStarted | Refused:
        """Give a share of a pool's sessions to another model (ORCH-3033)."""

    async def roll_back(self, pool_id: str) -> RolloutStarted | Refused:
        """Let the revision before serve again."""

    def promote(self, pool_id: str) -> RolloutStarted | Refused:
        """Let the canary take over."""

    def abort_rollout(self, pool_id: str) -> RolloutStarted | Refused:
        """Undo what is under way."""

    def share_canary(self, pool_id: str, percent: float) -> RolloutStarted | Refused:
        """Give the canary another share."""

    def rollout(self, pool_id: str) -> RolloutPage | Refused:
        """What serves a pool, what is under way, and what was."""

    async def reload_config(self, *, dry_run: bool, revert: bool) -> ConfigReloaded | Refused:
        """Take up the configuration file, or the configuration before this one."""

    async def upgrade(self, deadline_ms: int) -> UpgradeStatus | Refused:
        """Replace the daemon in place, once what runs has ended or may be cut."""

    def upgrade_status(self) -> UpgradeStatus:
        """How far that is."""

    def pool_log(self, pool_id: str, *, lines: int, follow: bool) -> AsyncIterator[bytes] | Refused:
        """The last lines of the engine's output, and with `follow` what comes after, in pieces."""

    def metrics_page(self) -> bytes:
        """The Prometheus text page."""

    def is_ready(self) -> bool:
        """Whether at least one pool can serve and tasks can be accepted (`/readyz`)."""
