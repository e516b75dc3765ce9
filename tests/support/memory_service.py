"""The daemon's `Service`, whole but in memory: tasks wait until a test says what the engine does with them."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import msgspec

from supervisor.core.refusals import Refused
from supervisor.http.service import Caller
from supervisor.runtime.tasklog import TaskLog
from supervisor.wire.codes import Code, Engine, FinishReason, Reason
from supervisor.wire.errors import ErrorEnvelope
from supervisor.wire.frames import (
    End,
    Started,
    StreamMetrics,
    end_frame,
    error_frame,
    metrics_frame,
    started_frame,
    token_frame,
)
from supervisor.wire.leases import LeasePage, LeaseRequest, LeaseView
from supervisor.wire.outlook import ChangeOutlook, OutlookRequest
from supervisor.wire.plan import MemoryPlan
from supervisor.wire.pools import (
    HostStatus,
    PoolChange,
    PoolHealth,
    PoolMetrics,
    ReplicaSetPage,
    ReplicaSetView,
    ReplicaView,
)
from supervisor.wire.rollouts import CanaryRequest, ConfigReloaded, ReloadRequest, RolloutPage, RolloutStarted
from supervisor.wire.self_tests import SelfTestReport, SelfTestStep
from supervisor.wire.sessions import SessionPage, SessionView
from supervisor.wire.tasks import Accepted, SubmitTask, TaskPage, TaskView
from supervisor.wire.upgrades import UpgradeState, UpgradeStatus

STARTED = Started(
    queue_position=0,
    predicted_start_ms=None,
    queue_time_ms=1,
    pool_id="p",
    replica_id="p/0",
    engine_version="1",
    model_digest="sha256:" + "0" * 64,
    kv_warmth=False,
)
FULL = Refused(
    code=Code.ADMISSION_REJECT, message="Full.", reason=Reason.QUEUE_FULL, retry_after_ms=1500, policy="reject"
)


@dataclass
class MemoryTask:
    """One accepted task and its log."""

    caller: Caller
    request: SubmitTask
    accepted: Accepted
    log: TaskLog
    state: str = "waiting"
    size_bytes: int = 0

    def start(self) -> None:
        self.state = "running"
        self.log.append_started(started_frame(STARTED))

    def emit(self, *texts: str) -> None:
        first = self.log.tokens
        self.log.append_tokens([token_frame(text, first + offset) for offset, text in enumerate(texts)])

    def emit_metrics(self) -> None:
        figures = StreamMetrics(tokens_out=self.log.tokens, tokens_per_s=1.0, elapsed_ms=1)
        self.log.push_metrics(metrics_frame(figures, self.log.seq))

    def finish(self, reason: FinishReason = FinishReason.STOP) -> None:
        self.state = "ended"
        end = End(
            tokens_out=self.log.tokens,
            decode_ms=1,
            finish_reason=reason,
            tokens_in=1,
            kv_warmth=False,
            kv_migrated=False,
        )
        self.log.close(end_frame(end, self.log.seq + 1))

    def fail(self) -> None:
        self.state = "failed"
        error = ErrorEnvelope(code=Code.WORKER_RESET, message="Gone.", retriable=True, correlation_id="x")
        self.log.close(error_frame(error, self.log.seq + 1))


@dataclass
class EngineOutput:
    """The output of one engine, growing."""

    pieces: list[bytes] = field(default_factory=list)
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    followers: int = 0

    def write(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self.grown.set()

    async def follow(self, lines: int, *, is_endless: bool) -> AsyncIterator[bytes]:
        self.followers += 1
        try:
            position = max(0, len(self.pieces) - lines)
            while True:
                for piece in self.pieces[position:]:
                    yield piece
                position = len(self.pieces)
                if not is_endless:
                    return
                self.grown.clear()
                await self.grown.wait()
        finally:
            self.followers -= 1


class MemoryService:
    """Implements `supervisor.http.service.Service`.

    `refuse_next` is what the next submit answers; `hold` makes submits wait, as for a slow disk; `readers` counts the
    readers of every stream and `readers_changed` is set whenever one count goes to or from zero.
    """

    def __init__(self, waiting_max: int = 100) -> None:
        self.waiting_max = waiting_max
        self.held: dict[str, MemoryTask] = {}
        self.output = {"p": EngineOutput()}
        self.kept: dict[tuple[str, str], SessionView] = {}
        self.deleted: set[tuple[str, str]] = set()
        self.draining: dict[str, int] = {}
        self.lent: dict[str, LeaseView] = {}
        self.upgrade_deadlines: list[int] = []
        self.is_serving = True
        self.refuse_next: Refused | None = None
        self.bug: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.submits_waiting = 0
        self.readers: dict[str, int] = {}
        self.readers_changed = asyncio.Condition()

    def task_of(self, task_id: str) -> MemoryTask:
        return self.held[task_id]

    async def wait_readers(self, task_id: str, count: int) -> None:
        """Until the stream of a task has readers (1) or none (0)."""
        job_id = self.held[task_id].accepted.job_id
        async with asyncio.timeout(10), self.readers_changed:
            await self.readers_changed.wait_for(lambda: self.readers.get(job_id, 0) == count)

    def _on_readers(self, job_id: str, count: int) -> None:
        self.readers[job_id] = count
        self._notify = asyncio.ensure_future(self._tell())

    async def _tell(self) -> None:
        async with self.readers_changed:
            self.readers_changed.notify_all()

    async def submit(self, caller: Caller, task: SubmitTask, size_bytes: int) -> Accepted | Refused:
        if self.bug is not None:
            raise self.bug
        if self.hold is not None:
            self.submits_waiting += 1
            await self.hold.wait()
            self.submits_waiting -= 1
        if self.refuse_next is not None:
            refused, self.refuse_next = self.refuse_next, None
            return refused
        known = self.held.get(task.task_id)
        if known is not None:
            return known.accepted if known.request == task else _refused(Reason.CONFLICT)
        waiting = sum(held.state == "waiting" for held in self.held.values())
        if waiting >= self.waiting_max:
            return Refused(
                code=Code.ADMISSION_REJECT,
                message="Full.",
                reason=Reason.QUEUE_FULL,
                retry_after_ms=1500,
                policy="reject",
            )
        accepted = Accepted(
            task_id=task.task_id,
            job_id=str(uuid.uuid4()),
            queue_position=waiting,
            predicted_start_ms=None if waiting == 0 else 10 * waiting,
        )
        log = TaskLog(accepted.job_id, self._on_readers)
        self.held[task.task_id] = MemoryTask(caller, task, accepted, log, size_bytes=size_bytes)
        return accepted

    async def cancel(self, caller: Caller, task_id: str) -> int | Refused:
        held = self.held.get(task_id)
        if held is None:
            return _refused(Reason.NOT_FOUND)
        held.log.freeze()
        if not held.log.is_closed:
            held.finish(FinishReason.CANCELED)
        return held.log.tokens

    def task(self, caller: Caller, task_id: str) -> TaskView | Refused:
        held = self.held.get(task_id)
        return _refused(Reason.NOT_FOUND) if held is None else _view(held)

    def tasks(self, caller: Caller, limit: int) -> TaskPage:
        views = [_view(held) for held in reversed(self.held.values())]
        return TaskPage(tasks=views[:limit], truncated=len(views) > limit)

    def stream(self, caller: Caller, task_id: str) -> TaskLog | Refused:
        held = self.held.get(task_id)
        if held is None:
            return _refused(Reason.NOT_FOUND)
        return held.log if held.state != "expired" else _refused(Reason.EXPIRED)

    def keep_session(self, session_id: str, tenant: str = "default") -> None:
        self.kept[tenant, session_id] = SessionView(
            session_id=session_id, ttl_ms_remaining=1000, turns=1, kv_bytes=10, kv_warmth=True
        )

    def session(self, caller: Caller, session_id: str) -> SessionView | Refused:
        return self.kept.get((caller.tenant, session_id)) or _refused(Reason.NOT_FOUND)

    def sessions(self, caller: Caller, limit: int) -> SessionPage:
        own = [view for (tenant, _), view in reversed(self.kept.items()) if tenant == caller.tenant]
        return SessionPage(sessions=own[:limit], truncated=len(own) > limit)

    def delete_session(self, caller: Caller, session_id: str) -> Refused | None:
        key = (caller.tenant, session_id)
        if self.kept.pop(key, None) is not None:
            self.deleted.add(key)
        return None if key in self.deleted else _refused(Reason.NOT_FOUND)

    def pool_health(self, pool_id: str) -> PoolHealth | Refused:
        if pool_id not in self.output:
            return _refused(Reason.NOT_FOUND)
        return PoolHealth(
            pool_id=pool_id,
            live=True,
            ready=self.is_serving,
            draining=pool_id in self.draining,
            state="ready",
            engine=Engine.LLAMACPP,
            model_ref="m",
            ctx=4096,
            devices=["0"],
            metrics=PoolMetrics(
                slots_total=1, slots_busy=0, waiting=0, tokens_per_s=0.0, tokens_out_total=0, restarts_total=0
            ),
            steps=[],
        )

    def replica_sets(self) -> ReplicaSetPage:
        replica = ReplicaView(pool_id="p", ready=self.is_serving, slots_total=1, slots_busy=0)
        view = ReplicaSetView(
            set_id="s",
            engine=Engine.LLAMACPP,
            model_digest=None,
            quant=None,
            ctx=4096,
            engine_version="1",
            sampler_profile_version="v1",
            replicas=[replica],
            waiting={"interactive": 0, "batch": 0},
            waiting_bytes=0,
        )
        return ReplicaSetPage(replicasets=[view])

    def plan(self) -> MemoryPlan:
        return MemoryPlan(offline=False, simulated=None, devices=[], pools=[])

    async def outlook(self, request: OutlookRequest) -> ChangeOutlook | Refused:
        if request.pool_id not in (msgspec.UNSET, "p"):
            return _refused(Reason.NOT_FOUND)
        return ChangeOutlook(simulated=None, pools=[])

    def status(self) -> HostStatus:
        healths = [self.pool_health(pool_id) for pool_id in self.output]
        return HostStatus(
            version="1",
            pid=1,
            uptime_ms=1,
            state="serving",
            simulated=None,
            gpu_cause=None,
            journal_writable=True,
            devices=[],
            pools=[health for health in healths if isinstance(health, PoolHealth)],
            replicasets=self.replica_sets().replicasets,
        )

    async def wishes_stored(self) -> None:
        """There is no disk."""

    def drain(self, pool_id: str, deadline_ms: int) -> PoolChange | Refused:
        if pool_id not in self.output:
            return _refused(Reason.NOT_FOUND)
        self.draining[pool_id] = deadline_ms
        return PoolChange(pool_id=pool_id, draining=True)

    def resume(self, pool_id: str) -> PoolChange | Refused:
        if pool_id not in self.output:
            return _refused(Reason.NOT_FOUND)
        self.draining.pop(pool_id, None)
        return PoolChange(pool_id=pool_id, draining=False)

    async def self_test(self, pool_id: str) -> SelfTestReport | Refused:
        if pool_id not in self.output:
            return _refused(Reason.NOT_FOUND)
        steps = [SelfTestStep(name="minimal_decode", passed=True, took_ms=1, detail="4 tokens were decoded")]
        return SelfTestReport(pool_id=pool_id, replica_id=f"{pool_id}/1", passed=True, steps=steps)

    async def take_lease(self, caller: Caller, request: LeaseRequest) -> LeaseView | Refused:
        lease = LeaseView(
            lease_id=str(uuid.uuid4()),
            state="held",
            devices=request.devices,
            owner=caller.client_id,
            purpose=request.purpose or "",
            expires_in_ms=request.for_ms,
            pools=[],
        )
        self.lent[lease.lease_id] = lease
        return lease

    def leases(self) -> LeasePage:
        return LeasePage(leases=list(self.lent.values()))

    def lease(self, lease_id: str) -> LeaseView | Refused:
        return self.lent.get(lease_id) or _refused(Reason.NOT_FOUND)

    def end_lease(self, lease_id: str) -> Refused | None:
        return None if self.lent.pop(lease_id, None) else _refused(Reason.NOT_FOUND)

    async def upgrade(self, deadline_ms: int) -> UpgradeStatus | Refused:
        self.upgrade_deadlines.append(deadline_ms)
        return self.upgrade_status()

    def upgrade_status(self) -> UpgradeStatus:
        state = UpgradeState.QUIESCING if self.upgrade_deadlines else UpgradeState.NONE
        return UpgradeStatus(life="a-life", version="1.0", state=state)

    async def reload_pool(self, pool_id: str, request: ReloadRequest) -> RolloutStarted | Refused:
        return self._rolled(pool_id)

    async def start_canary(self, pool_id: str, request: CanaryRequest) -> RolloutStarted | Refused:
        return self._rolled(pool_id)

    async def roll_back(self, pool_id: str) -> RolloutStarted | Refused:
        return self._rolled(pool_id)

    def promote(self, pool_id: str) -> RolloutStarted | Refused:
        return self._rolled(pool_id)

    def abort_rollout(self, pool_id: str) -> RolloutStarted | Refused:
        return self._rolled(pool_id)

    def share_canary(self, pool_id: str, percent: float) -> RolloutStarted | Refused:
        return self._rolled(pool_id)

    def rollout(self, pool_id: str) -> RolloutPage | Refused:
        if pool_id != "p":
            return _refused(Reason.NOT_FOUND)
        return RolloutPage(pool_id=pool_id, revision=1, model_ref="m", standby=None, rollout=None, history=[])

    async def reload_config(self, *, dry_run: bool, revert: bool) -> ConfigReloaded | Refused:
        return ConfigReloaded(generation=1 + (not dry_run) - revert, dry_run=dry_run, changes=[])

    def _rolled(self, pool_id: str) -> RolloutStarted | Refused:
        return RolloutStarted(pool_id=pool_id, revision=2) if pool_id == "p" else _refused(Reason.NOT_FOUND)

    def pool_log(self, pool_id: str, *, lines: int, follow: bool) -> AsyncIterator[bytes] | Refused:
        if pool_id not in self.output:
            return _refused(Reason.NOT_FOUND)
        return self.output[pool_id].follow(lines, is_endless=follow)

    def metrics_page(self) -> bytes:
        return b"# HELP queue_depth Tasks that wait.\nqueue_depth %d\n" % len(self.held)

    def is_ready(self) -> bool:
        return self.is_serving


def _refused(reason: Reason) -> Refused:
    return Refused(code=Code.INVALID_PARAMS, message="There is no such task or pool.", reason=reason)


def _view(held: MemoryTask) -> TaskView:
    return TaskView(
        task_id=held.request.task_id,
        job_id=held.accepted.job_id,
        state=held.state,
        priority=held.request.priority,
        engine=held.request.engine,
        model_ref=held.request.model_ref,
        attempt=1,
        age_ms=0,
        deadline_remaining_ms=held.request.deadline_ms,
        queue_position=held.accepted.queue_position,
    )


def submit_body(**changes: object) -> bytes:
    """A valid body of `POST /v1/tasks`; a change to `...` leaves the field out."""
    fields: dict[str, object] = {
        "task_id": str(uuid.uuid4()),
        "session_id": "123e4567-e89b-42d3-a456-426614174000",
        "workload": "completion",
        "model_ref": "m",
        "engine": "llamacpp",
        "ctx": 4096,
        "priority": "interactive",
        "max_tokens": 16,
        "deadline_ms": 30_000,
        "prompt": "Hello",
    }
    fields |= changes
    return msgspec.json.encode({name: value for name, value in fields.items() if value is not ...})
