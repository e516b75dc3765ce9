"""The state of the core as clients and operators see it: wire structs, made on request, decided nowhere here."""

import os
from collections.abc import Mapping

import msgspec

from supervisor.core.lifecycle import Phase
from supervisor.core.replicas import Replica, ReplicaSet, Step, Wanted
from supervisor.core.state import State
from supervisor.core.tasks import Aborting, Accepting, Ended, Ending, Outcome, Running, Task, Waiting
from supervisor.runtime.envelopes import envelope
from supervisor.runtime.gauges import Gauges
from supervisor.runtime.tasklog import TaskLog
from supervisor.wire.codes import Priority
from supervisor.wire.pools import (
    DeviceView,
    HostStatus,
    PoolHealth,
    PoolMetrics,
    ReplicaSetView,
    ReplicaView,
    StepStatus,
)
from supervisor.wire.tasks import TaskResult, TaskView

_PROCESS_PHASES = (Phase.LOADING, Phase.INSPECTING, Phase.TESTING, Phase.READY, Phase.STOPPING)
_HEADLESS = b"event: token\ndata: "


class _TokenData(msgspec.Struct):
    t: str


_decode_token = msgspec.json.Decoder(_TokenData).decode


def view_task(state: State, task: Task, log: TaskLog | None, now_ms: float) -> TaskView:
    """One task of a caller. Times are milliseconds."""
    view = TaskView(
        task_id=task.task_id,
        job_id=task.job_id,
        state="accepting",
        priority=task.priority,
        engine=task.engine,
        model_ref=task.model_ref,
        attempt=task.attempt,
        age_ms=round(now_ms - task.admitted_ms),
        deadline_remaining_ms=max(round(task.deadline_at_ms - now_ms), 0),
        predicted_start_ms=task.predicted_start_ms,
    )
    if task.last_run is not None:
        view.queue_time_ms = round(task.queue_time_ms)
        view.pool_id = task.last_run.pool_id
        view.replica_id = f"{task.last_run.pool_id}/{task.last_run.incarnation}"
    match task.phase:
        case Accepting():
            view.queue_position = task.queue_position
        case Waiting():
            view.state = "waiting"
            view.queue_position = state.sets[task.set_id].waiting.rank(task)
        case Running() | Aborting():
            view.state = "running"
            view.tokens_emitted = log.tokens if log else 0
        case Ending(outcome=outcome):
            view.state = "running"
            view.tokens_emitted = outcome.emitted
        case Ended(outcome=outcome):
            _view_outcome(view, task, outcome, log)
    return view


def _view_outcome(view: TaskView, task: Task, outcome: Outcome, log: TaskLog | None) -> None:
    view.tokens_emitted = outcome.emitted
    if outcome.error is not None:
        view.state = "failed"
        view.error = envelope(outcome.error, task.job_id)
        return
    assert outcome.finish_reason is not None
    view.state = "ended"
    view.result = TaskResult(
        text=read_text(log) if log else "",
        finish_reason=outcome.finish_reason,
        tokens_in=outcome.tokens_in,
        tokens_out=outcome.tokens_out,
        decode_ms=round(outcome.decode_ms),
    )


def read_text(log: TaskLog) -> str:
    """The whole text of a stream, out of its token frames."""
    texts = []
    for frame in log.dump().split(b"\n\n"):
        _, found, data = frame.partition(_HEADLESS)
        if found:
            texts.append(_decode_token(data).t)
    return "".join(texts)


def view_set(home: ReplicaSet) -> ReplicaSetView:
    """One replica set and its load."""
    return ReplicaSetView(
        set_id=home.set_id,
        engine=home.members[0].plan.engine,
        model_digest=home.members[0].plan.model_digest,
        quant=home.key.quant,
        ctx=home.key.ctx or home.members[0].ctx_per_slot,
        engine_version=home.key.engine_version,
        sampler_profile_version=home.key.sampler_profile_version,
        replicas=[
            ReplicaView(
                pool_id=member.pool_id, ready=member.is_serving, slots_total=member.slots, slots_busy=member.load
            )
            for member in home.members
        ],
        waiting={str(priority): home.waiting.depth(priority) for priority in Priority},
        waiting_bytes=home.waiting.size_bytes,
    )


def view_pool(state: State, replica: Replica, gauges: Gauges, now_ms: float) -> PoolHealth:
    """One pool: its state, why, when it is tried again, and its figures."""
    retries = replica.phase in (Phase.BACKOFF, Phase.BROKEN) and replica.due_ms is not None
    return PoolHealth(
        pool_id=replica.pool_id,
        live=replica.pid is not None and replica.phase in _PROCESS_PHASES,
        ready=replica.is_serving,
        draining=replica.wanted is Wanted.DRAIN,
        state=replica.phase,
        engine=replica.plan.engine,
        model_ref=replica.plan.model_ref,
        ctx=replica.plan.ctx or replica.ctx_per_slot,
        devices=list(replica.devices) or [str(device) for device in replica.plan.devices],
        metrics=_view_metrics(state, replica, gauges),
        steps=[_view_step(step) for step in replica.steps],
        cause=replica.cause,
        retry_in_ms=round(max((replica.due_ms or 0) - now_ms, 0)) if retries else None,
        since_ms=round(now_ms - replica.since_ms),
        replica_id=replica.replica_id if replica.incarnation else None,
        engine_version=replica.engine_version,
        model_digest=replica.plan.model_digest,
        ctx_per_slot=replica.ctx_per_slot or None,
        pid=replica.pid,
    )


def _view_step(step: Step) -> StepStatus:
    took_ms = None if step.took_ms is None else round(step.took_ms)
    return StepStatus(name=step.name, state=step.state, took_ms=took_ms, detail=step.detail)


def _view_metrics(state: State, replica: Replica, gauges: Gauges) -> PoolMetrics:
    name = replica.pool_id
    first = gauges.metrics.first_token_ms[name].at(0.5, 0.95, 0.99)
    queued = gauges.metrics.queue_time_ms[name].at(0.5, 0.95, 0.99)
    return PoolMetrics(
        slots_total=replica.slots,
        slots_busy=replica.load,
        waiting=len(state.sets[replica.set_id].waiting),
        tokens_per_s=round(gauges.tokens_per_s(name), 1),
        tokens_out_total=gauges.meters[name].tokens_total,
        restarts_total=replica.restarts,
        first_token_p50_ms=first[0],
        first_token_p95_ms=first[1],
        first_token_p99_ms=first[2],
        queue_time_p50_ms=queued[0],
        queue_time_p95_ms=queued[1],
        queue_time_p99_ms=queued[2],
    )


def view_host(state: State, gauges: Gauges, facts: "HostFacts", now_ms: float) -> HostStatus:
    """Everything that `orchctl status` shows."""
    pools = [view_pool(state, replica, gauges, now_ms) for replica in state.replicas.values()]
    return HostStatus(
        version=facts.version,
        pid=os.getpid(),
        uptime_ms=round(now_ms - facts.started_ms),
        state="stopping" if state.halt_deadline_ms is not None else "running",
        simulated=facts.simulated,
        gpu_cause=state.gpu_cause,
        journal_writable=state.is_journal_writable,
        devices=_view_devices(state, gauges.devices),
        pools=pools,
        replicasets=[view_set(home) for home in state.sets.values() if home.members],
    )


def _view_devices(state: State, devices: Mapping[str, DeviceView]) -> list[DeviceView]:
    return [
        msgspec.structs.replace(
            device, pools=[pool.pool_id for pool in state.replicas.values() if device.uuid in pool.devices]
        )
        for device in devices.values()
    ]


class HostFacts(msgspec.Struct, frozen=True):
    """What never changes while the daemon runs. `started_ms` is monotonic."""

    version: str
    simulated: str | None
    started_ms: float
