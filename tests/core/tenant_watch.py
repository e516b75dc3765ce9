"""What tenants and keys were granted, by an own count of jobs, memory and tokens: never more than the plans allow."""

from dataclasses import dataclass

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.plan import HostPlan, PoolPlan
from supervisor.core.rates import GRACE_MS
from supervisor.core.tasks import Task
from supervisor.wire.codes import Priority
from tests.core.ledger import demand

_SLACK = 1e-6


@dataclass
class _Job:
    """An accepted job that has not ended. `run` is the run that serves it now."""

    task: Task
    memory_bytes: int
    run: int | None = None


class TenantWatch:
    """Watches one daemon. Raises BrokenPromiseError."""

    def __init__(self, plans: tuple[PoolPlan, ...], host: HostPlan) -> None:
        self._plans, self._host = plans, host
        self._jobs: dict[str, _Job] = {}
        self._counted: set[str] = set()
        self._levels: dict[tuple[str, Priority, str], tuple[float, float]] = {}
        self._now = 0.0

    def note_event(self, event: ev.Event, now_ms: float) -> None:
        self._now = now_ms
        match event:
            case ev.TasksRestored(unfinished=unfinished):
                self._jobs |= {task.job_id: _Job(task, self._memory_of(task)) for task in unfinished}
            case ev.AcceptsFailed(job_ids=job_ids):
                for job_id in job_ids:
                    del self._jobs[job_id]
            case ev.RunFinished(run_id=run_id) | ev.RunFailed(run_id=run_id) | ev.RunAborted(run_id=run_id):
                for job in self._jobs.values():
                    job.run = None if job.run == run_id else job.run
            case _:
                pass

    def note_effect(self, effect: ef.Effect) -> None:
        match effect:
            case ef.CommitAccept(task=task):
                self._jobs[task.job_id] = _Job(task, self._memory_of(task))
                self._check_quota(task.tenant)
                if task.job_id not in self._counted:
                    self._charge(task)
            case ef.CountTokens(task=task):
                self._counted.add(task.job_id)
                self._charge(task)
            case ef.CommitFinish(task=task):
                del self._jobs[task.job_id]
            case ef.StartRun(task=task, run_id=run_id):
                self._jobs[task.job_id].run = run_id
            case _:
                pass

    def _memory_of(self, task: Task) -> int:
        plans = [plan for plan in self._plans if task.model_ref in plan.model_refs]
        tokens = min(min(task.prompt_bytes + 8, task.ctx) + task.max_tokens, task.ctx)
        return task.size_bytes + tokens * max((plan.kv_bytes_per_token for plan in plans), default=0)

    def _check_quota(self, tenant: str) -> None:
        """At each grant, not at all times: a task that lost its worker waits again, whatever the quota."""
        plan = self._host.tenants.get(tenant)
        if plan is None:
            return
        own = [job for job in self._jobs.values() if job.task.tenant == tenant]
        held = {
            "jobs": (len(own), plan.concurrent_jobs),
            "waiting tasks": (sum(job.run is None for job in own), plan.waiting_tasks),
            "bytes": (sum(job.memory_bytes for job in own), plan.memory_bytes),
        }
        for what, (count, most) in held.items():
            demand(
                that=most is None or count <= most, sentence=f"{tenant} was granted {count} {what}, it may have {most}"
            )

    def _charge(self, task: Task) -> None:
        """In any window a burst, what flows in, and what was promised before and is kept for so long."""
        plan = next(plan for plan in self._plans if task.model_ref in plan.model_refs)
        bounds = plan.classes[task.priority]
        if bounds.rate_limit_rps is None:
            return
        per_ms, key = bounds.rate_limit_rps / 1_000, (task.client_id, task.priority, task.model_ref)
        most = bounds.burst + 1 + per_ms * (GRACE_MS + 1)
        level, at_ms = self._levels.get(key, (most, self._now))
        level = min(level + per_ms * (self._now - at_ms), most) - 1
        demand(that=level >= -_SLACK, sentence=f"{key} submits faster than {bounds}")
        self._levels[key] = level, self._now
