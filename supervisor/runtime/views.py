"""The state of the core as clients and operators see it: wire structs, made on request, decided nowhere here."""

import os
from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec import UNSET

from supervisor.core.breaker import Breaker
from supervisor.core.lifecycle import Phase
from supervisor.core.plan import public_id_of
from supervisor.core.replicas import Replica, ReplicaSet, Step, Wanted
from supervisor.core.state import State
from supervisor.core.tasks import Aborting, Accepting, Ended, Ending, Outcome, Running, Task, Waiting
from supervisor.runtime.envelopes import envelope
from supervisor.runtime.gauges import Gauges
from supervisor.runtime.results import read_outputs
from supervisor.runtime.rollout_views import current_replicas, revision_of, view_rollout
from supervisor.runtime.tasklog import TaskLog
from supervisor.wire.codes import Priority
from supervisor.wire.pools import (
    BreakerView,
    DeviceView,
    HostStatus,
    PolicyStatus,
    PoolHealth,
    PoolMetrics,
    ReplicaSetView,
    ReplicaView,
    StepStatus,
    TenantView,
)
from supervisor.wire.store import StoreView
from supervisor.wire.tasks import TaskResult, TaskView

_PROCESS_PHASES = (Phase.LOADING, Phase.INSPECTING, Phase.TESTING, Phase.READY, Phase.STOPPING)
_HEADLESS = b"event: token\ndata: "


class _TokenData(msgspec.Struct):
    t: str


_decode_token = msgspec.json.Decoder(_TokenData).decode


def view_task(state: State, task: Task, log: TaskLog | None, now_ms: float, *, is_listed: bool = False) -> TaskView:
    """One task of a caller. Times are milliseconds. A list has no room for texts and outputs."""
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
        view.pool_id = public_id_of(task.last_run.pool_id)
        view.replica_id = f"{task.last_run.pool_id}/{task.last_run.incarnation}"
        view.kv_warmth = task.last_run.kv_warmth
    match task.phase:
        case Accepting():
            view.queue_position = task.queue_position
        case Waiting():
            view.state = "waiting"
            view.queue_position = state.sets[task.set_id].waiting.rank(task)
            view.tokens_emitted = task.emitted
        case Running() | Aborting():
            view.state = "running"
            view.tokens_emitted = log.tokens if log else 0
        case Ending(outcome=outcome):
            view.state = "running"
            view.tokens_emitted = outcome.emitted
        case Ended(outcome=outcome):
            _view_outcome(view, task, outcome)
            if not is_listed and view.result is not None:
                view.result.text = read_text(log) if log and log.tokens else ""
                view.result.outputs = read_outputs(log) if log else UNSET
    return view


def _view_outcome(view: TaskView, task: Task, outcome: Outcome) -> None:
    view.tokens_emitted = outcome.emitted
    view.kv_warmth = outcome.kv_warmth
    if outcome.error is not None:
        view.state = "failed"
        view.error = envelope(outcome.error, task.job_id)
        return
    assert outcome.finish_reason is not None
    view.state = "ended"
    view.result = TaskResult(
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


def view_sets(state: State) -> list[ReplicaSetView]:
    """All sets that have members, in the order of their first pools in the configuration."""
    rank = {pool_id: place for place, pool_id in enumerate(state.replicas)}
    homes = [home for home in state.sets.values() if home.members]
    return [view_set(home) for home in sorted(homes, key=lambda home: min(rank[m.pool_id] for m in home.members))]


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
                pool_id=member.plan.public_id,
                role=member.role,
                revision=revision_of(member.pool_id),
                ready=member.is_serving,
                slots_total=member.slots,
                slots_busy=member.load,
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
        pool_id=replica.plan.public_id,
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
        breaker=_view_breaker(replica.breaker, now_ms),
        cause=replica.cause,
        retry_in_ms=round(max((replica.due_ms or 0) - now_ms, 0)) if retries else None,
        since_ms=round(now_ms - replica.since_ms),
        replica_id=replica.replica_id if replica.incarnation else None,
        engine_version=replica.engine_version,
        model_digest=replica.plan.model_digest,
        ctx_per_slot=replica.ctx_per_slot or None,
        pid=replica.pid,
        revision=revision_of(replica.pool_id),
        role=replica.role,
        rollout=view_rollout(state, pool, now_ms) if (pool := state.pools.get(replica.plan.public_id)) else None,
    )


def _view_breaker(breaker: Breaker, now_ms: float) -> BreakerView:
    retry_in_ms = None if breaker.due_ms is None else round(max(breaker.due_ms - now_ms, 0))
    return BreakerView(state=breaker.trust, retry_in_ms=retry_in_ms, cause=breaker.cause)


def _view_step(step: Step) -> StepStatus:
    took_ms = None if step.took_ms is None else round(step.took_ms)
    return StepStatus(name=step.name, state=step.state, took_ms=took_ms, detail=step.detail)


def _view_metrics(state: State, replica: Replica, gauges: Gauges) -> PoolMetrics:
    name = replica.plan.public_id
    first = gauges.metrics.first_token_ms[name].at(0.5, 0.95, 0.99)
    queued = gauges.metrics.queue_time_ms[name].at(0.5, 0.95, 0.99)
    errors_ms = gauges.metrics.predict_error_ms[name].at(0.5, 0.9)
    errors_percent = gauges.metrics.predict_error_percent[name].at(0.5, 0.9)
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
        predicted_start_error_p50_ms=errors_ms[0],
        predicted_start_error_p90_ms=errors_ms[1],
        predicted_start_error_p50_percent=errors_percent[0],
        predicted_start_error_p90_percent=errors_percent[1],
    )


def view_host(state: State, gauges: Gauges, facts: "HostFacts", now_ms: float) -> HostStatus:
    """Everything that `orchctl status` shows."""
    pools = [view_pool(state, replica, gauges, now_ms) for replica in current_replicas(state)]
    return HostStatus(
        version=facts.version,
        pid=os.getpid(),
        uptime_ms=round(now_ms - facts.started_ms),
        state="stopping" if state.halt_deadline_ms is not None else "running",
        simulated=facts.simulated,
        gpu_cause=state.gpu_cause,
        journal_writable=state.is_journal_writable,
        journal_cause=state.journal_cause,
        devices=_view_devices(state, gauges.devices),
        pools=pools,
        replicasets=view_sets(state),
        policy=facts.policy(),
        tenants=[_view_tenant(state, tenant) for tenant in state.quotas.tenants()],
        keys_file=facts.keys_file,
        store=facts.store,
        worker_groups=facts.worker_groups,
        causes=list(facts.causes()),
        config_generation=facts.generation(),
        gpu_trouble=gauges.gpu_trouble,
    )


def _view_tenant(state: State, tenant: str) -> TenantView:
    plan, usage = state.quotas.plan_of(tenant), state.quotas.usage_of(tenant)
    return TenantView(
        tenant=tenant,
        weight=plan.weight,
        jobs=usage.jobs,
        jobs_max=plan.concurrent_jobs,
        waiting=usage.waiting,
        waiting_max=plan.waiting_tasks,
        memory_bytes=state.quotas.memory_held(tenant),
        memory_bytes_max=plan.memory_bytes,
    )


def _pools_on(state: State, uuid: str) -> list[str]:
    found = (each.plan.public_id for each in state.replicas.values() if uuid in each.devices)
    return list(dict.fromkeys(found))


def _view_devices(state: State, devices: Mapping[str, DeviceView]) -> list[DeviceView]:
    return [
        msgspec.structs.replace(
            device,
            pools=_pools_on(state, device.uuid),
            withheld=state.devices.cause_of(device.uuid),
            flags=list(state.faults.flags.get(device.uuid, ())),
        )
        for device in devices.values()
    ]


class HostFacts(msgspec.Struct, frozen=True):
    """What never changes while the daemon runs, and where to ask for the rest. `started_ms` is monotonic.

    `policy` shows the plugin, `causes` files that could not be taken up.
    """

    version: str
    simulated: str | None
    started_ms: float
    policy: Callable[[], PolicyStatus | None] = lambda: None
    keys_file: str | None = None
    worker_groups: str | None = None
    causes: Callable[[], Sequence[str]] = lambda: ()
    store: StoreView | None = None
    generation: Callable[[], int] = lambda: 1
