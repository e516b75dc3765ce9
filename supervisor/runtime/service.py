"""The daemon as the HTTP edge sees it: turns calls into events and waits for their answers; shows the state."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from supervisor.core import events as ev
from supervisor.core.effects import AnswerAccepted, AnswerCancelled
from supervisor.core.refusals import Refused
from supervisor.core.replicas import Wanted
from supervisor.core.state import State
from supervisor.core.tasks import Ended, Task
from supervisor.runtime import host_memory, views
from supervisor.runtime.answers import Answers
from supervisor.runtime.caller import Caller
from supervisor.runtime.config_desk import ConfigDesk
from supervisor.runtime.fresh_ids import fresh_id
from supervisor.runtime.gauges import Gauges
from supervisor.runtime.intent_file import IntentFile
from supervisor.runtime.journaling import Journaling
from supervisor.runtime.lease_desk import LeaseDesk
from supervisor.runtime.log_following import follow, tail_lines
from supervisor.runtime.loop import CoreLoop
from supervisor.runtime.outlook_desk import OutlookDesk
from supervisor.runtime.plan_desk import plan_memory
from supervisor.runtime.rollout_desk import RolloutDesk
from supervisor.runtime.self_test_desk import SelfTestDesk
from supervisor.runtime.session_desk import SessionDesk
from supervisor.runtime.stream_logs import StreamLogs
from supervisor.runtime.task_codec import new_task
from supervisor.runtime.tasklog import TaskLog
from supervisor.runtime.upgrade import UpgradeDesk
from supervisor.wire.codes import Code, Determinism, Reason
from supervisor.wire.leases import LeasePage, LeaseRequest, LeaseView
from supervisor.wire.outlook import ChangeOutlook, OutlookRequest
from supervisor.wire.plan import MemoryPlan
from supervisor.wire.pools import HostStatus, PoolChange, PoolHealth, ReplicaSetPage
from supervisor.wire.rollouts import CanaryRequest, ConfigReloaded, ReloadRequest, RolloutPage, RolloutStarted
from supervisor.wire.self_tests import SelfTestReport
from supervisor.wire.sessions import SessionPage, SessionView
from supervisor.wire.tasks import Accepted, SubmitTask, TaskPage, TaskView
from supervisor.wire.upgrades import UpgradeStatus


@dataclass(frozen=True, slots=True)
class DaemonService:
    """Implements `supervisor.http.service.Service`."""

    core: CoreLoop
    answers: Answers
    journaling: Journaling
    logs: StreamLogs
    gauges: Gauges
    facts: views.HostFacts
    log_path: Callable[[str], Path]
    lease_desk: LeaseDesk
    rollouts: RolloutDesk
    config_desk: ConfigDesk
    outlook_desk: OutlookDesk
    self_test_desk: SelfTestDesk
    upgrades: UpgradeDesk
    intents: IntentFile

    @property
    def _state(self) -> State:
        return self.core.state

    async def submit(self, caller: Caller, task: SubmitTask, size_bytes: int) -> Accepted | Refused:  # noqa: ARG002
        """Admit a task and wait until it is on disk."""
        job_id = fresh_id()
        now_ms = self.core.now_ms()
        record, request = new_task(caller, job_id, task, self._default_determinism(task), now_ms)
        future = self.answers.expect(job_id)
        with self.journaling.holding(job_id, request):
            self.core.post(ev.TaskSubmitted(record))
            answer = await future
        if isinstance(answer, Refused):
            return answer
        assert isinstance(answer, AnswerAccepted)
        return Accepted(
            task_id=answer.task_id,
            job_id=answer.job_id,
            queue_position=answer.queue_position,
            predicted_start_ms=answer.predicted_start_ms,
        )

    def _default_determinism(self, task: SubmitTask) -> Determinism:
        homes = self._state.routes.get((task.engine, task.model_ref), ())
        members = [member for home in homes for member in home.members]
        return members[0].plan.determinism if members else Determinism.STRICT

    async def cancel(self, caller: Caller, task_id: str) -> int | Refused:
        """Cancel a task in any phase; gives the number of token frames it ever emitted."""
        task = self._find(caller, task_id)
        if task is None:
            return _not_found("task")
        ticket = fresh_id()
        future = self.answers.expect(ticket)
        self.core.post(ev.CancelRequested(ticket, task.job_id))
        answer = await future
        assert isinstance(answer, AnswerCancelled)
        return answer.emitted

    def _find(self, caller: Caller, task_id: str) -> Task | None:
        return self._state.find_task(caller.tenant, task_id)

    def task(self, caller: Caller, task_id: str) -> TaskView | Refused:
        """One task of the caller."""
        task = self._find(caller, task_id)
        return _not_found("task") if task is None else self._view(task)

    def _view(self, task: Task) -> TaskView:
        return views.view_task(self._state, task, self.logs.find(task.job_id), self.core.now_ms())

    def _list(self, task: Task) -> TaskView:
        """A line of a list: it costs the same however long the stream of the task is, and restores none."""
        log = self.logs.thawed(task.job_id)
        return views.view_task(self._state, task, log, self.core.now_ms(), is_listed=True)

    def tasks(self, caller: Caller, limit: int) -> TaskPage:
        """The caller's tasks, newest first, without what they produced."""
        own = self._state.by_task.get(caller.tenant, {})
        newest = [self._state.tasks[job_id] for job_id in islice(reversed(own.values()), limit)]
        return TaskPage(tasks=[self._list(task) for task in newest], truncated=len(own) > limit)

    def stream(self, caller: Caller, task_id: str) -> TaskLog | Refused:
        """The log of a task's stream, live or finished."""
        task = self._find(caller, task_id)
        if task is None:
            return _not_found("task")
        if isinstance(task.phase, Ended) and task.job_id not in self._state.logs:
            message = "The stream of this task is no longer kept."
            return Refused(code=Code.INVALID_PARAMS, reason=Reason.EXPIRED, message=message)
        return self.logs.open(task.job_id)

    def session(self, caller: Caller, session_id: str) -> SessionView | Refused:
        """One session of the caller."""
        return SessionDesk(self.core).show(caller, session_id)

    def sessions(self, caller: Caller, limit: int) -> SessionPage:
        """The caller's sessions, last used first."""
        return SessionDesk(self.core).page(caller, limit)

    def delete_session(self, caller: Caller, session_id: str) -> Refused | None:
        """End a session and evict its KV."""
        return SessionDesk(self.core).delete(caller, session_id)

    def pool_health(self, pool_id: str) -> PoolHealth | Refused:
        """One pool."""
        pool = self._state.pools.get(pool_id)
        if pool is None:
            return _not_found("pool")
        replica = self._state.replicas[pool.current]
        return views.view_pool(self._state, replica, self.gauges, self.core.now_ms())

    def replica_sets(self) -> ReplicaSetPage:
        """All replica sets that have members."""
        return ReplicaSetPage(replicasets=views.view_sets(self._state))

    def plan(self) -> MemoryPlan:
        """What fits into the memory of the GPUs."""
        return plan_memory(
            self._state, self.gauges.devices, self.facts.simulated, host_free_mib=host_memory.look().free_mib
        )

    async def outlook(self, request: OutlookRequest) -> ChangeOutlook | Refused:
        """What a change would do."""
        return await self.outlook_desk.ask(request)

    def status(self) -> HostStatus:
        """The whole host."""
        return views.view_host(self._state, self.gauges, self.facts, self.core.now_ms())

    def drain(self, pool_id: str, deadline_ms: int) -> PoolChange | Refused:
        """Take a pool out of service."""
        return self._change(pool_id, ev.DrainRequested(pool_id, deadline_ms))

    def resume(self, pool_id: str) -> PoolChange | Refused:
        """Undo a drain, and retry what waits."""
        return self._change(pool_id, ev.ResumeRequested(pool_id))

    def _change(self, pool_id: str, event: ev.DrainRequested | ev.ResumeRequested) -> PoolChange | Refused:
        pool = self._state.pools.get(pool_id)
        if pool is None:
            return _not_found("pool")
        self.core.post(event)
        wanted = self._state.replicas[pool.current].wanted
        return PoolChange(pool_id=pool_id, draining=wanted is Wanted.DRAIN)

    async def self_test(self, pool_id: str) -> SelfTestReport | Refused:
        """Test the worker of a pool while it serves."""
        return await self.self_test_desk.ask(pool_id)

    async def take_lease(self, caller: Caller, request: LeaseRequest) -> LeaseView | Refused:
        """Begin a lease of GPUs."""
        return await self.lease_desk.take(caller, request)

    def leases(self) -> LeasePage:
        """All leases."""
        return self.lease_desk.page()

    def lease(self, lease_id: str) -> LeaseView | Refused:
        """One lease."""
        return self.lease_desk.find(lease_id)

    def end_lease(self, lease_id: str) -> Refused | None:
        """Give a lease back."""
        return self.lease_desk.end(lease_id)

    async def upgrade(self, deadline_ms: int) -> UpgradeStatus | Refused:
        """Replace the daemon in place."""
        return await self.upgrades.begin(deadline_ms)

    def upgrade_status(self) -> UpgradeStatus:
        """How far that is."""
        return self.upgrades.status()

    def pool_log(self, pool_id: str, *, lines: int, follow: bool) -> AsyncIterator[bytes] | Refused:
        """The last lines of the engine's output, and with `follow` what comes after."""
        pool = self._state.pools.get(pool_id)
        if pool is None:
            return _not_found("pool")
        return _read_log(self.log_path(pool.current), lines, is_followed=follow)

    async def reload_pool(self, pool_id: str, request: ReloadRequest) -> RolloutStarted | Refused:
        """Give a pool another model."""
        return await self.rollouts.reload(pool_id, request)

    async def start_canary(self, pool_id: str, request: CanaryRequest) -> RolloutStarted | Refused:
        """Give a share of a pool's sessions to another model."""
        return await self.rollouts.canary(pool_id, request)

    async def roll_back(self, pool_id: str) -> RolloutStarted | Refused:
        """Let the revision before serve again."""
        return await self.rollouts.rollback(pool_id)

    def promote(self, pool_id: str) -> RolloutStarted | Refused:
        """Let the canary take over."""
        return self.rollouts.promote(pool_id)

    def abort_rollout(self, pool_id: str) -> RolloutStarted | Refused:
        """Undo what is under way."""
        return self.rollouts.abort(pool_id)

    def share_canary(self, pool_id: str, percent: float) -> RolloutStarted | Refused:
        """Give the canary another share."""
        return self.rollouts.share(pool_id, percent)

    def rollout(self, pool_id: str) -> RolloutPage | Refused:
        """What serves a pool, what is under way, and what was."""
        return self.rollouts.page(pool_id)

    async def wishes_stored(self) -> None:
        """Until what operators asked for is on disk."""
        await self.intents.wait_stored()

    async def reload_config(self, *, dry_run: bool, revert: bool) -> ConfigReloaded | Refused:
        """Take up the configuration file, or the configuration before this one."""
        return await self.config_desk.reload(dry_run=dry_run, revert=revert)

    def metrics_page(self) -> bytes:
        """The Prometheus text page."""
        return self.gauges.metrics.page()

    def is_ready(self) -> bool:
        """Whether at least one pool can serve and tasks can be accepted."""
        return self._state.is_ready


def _not_found(what: str) -> Refused:
    return Refused(code=Code.INVALID_PARAMS, reason=Reason.NOT_FOUND, message=f"There is no such {what}.")


async def _read_log(path: Path, lines: int, *, is_followed: bool) -> AsyncIterator[bytes]:
    text, offset = await asyncio.to_thread(tail_lines, path, lines)
    yield text
    if is_followed:
        async for piece in follow(path, offset):
            yield piece
