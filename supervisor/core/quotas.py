"""What each tenant holds of the host, and whether it may hold more (ORCH-3036).

A job counts from the step that admits it until its end is decided, in that same step: the ledger always equals a
recount of the tasks, also after a restart. `waiting` are the jobs that wait or whose record is being written. Memory is
the KV cache that a job needs at most, and the bytes of its request. Only admission is refused by a quota: what was
accepted keeps its place, whatever the next configuration says.
"""

from collections.abc import Mapping
from math import ceil

from msgspec import Struct

from supervisor.core.plan import NO_QUOTA, TenantPlan
from supervisor.core.quota_hints import RETRY_QUOTA_MS_MAX, QuotaLine
from supervisor.core.refusals import Refused
from supervisor.core.replicas import ReplicaSet
from supervisor.core.tasks import Task
from supervisor.wire.codes import Code, Reason

PROMPT_TOKENS_EXTRA = 8
"""A prompt of B bytes has at most B + 8 tokens."""


class Usage(Struct):
    """What one tenant holds now. `expected_tokens` are those of all its jobs."""

    jobs: int = 0
    waiting: int = 0
    memory_bytes: int = 0
    expected_tokens: int = 0


class Quotas:
    """The ledger of all tenants. A tenant that holds nothing has no entry."""

    __slots__ = ("_lines", "_plans", "_usage")

    def __init__(self, plans: Mapping[str, TenantPlan]) -> None:
        self._plans = plans
        self._usage: dict[str, Usage] = {}
        self._lines: dict[str, QuotaLine] = {}

    def tune(self, plans: Mapping[str, TenantPlan]) -> None:
        """Other quotas: for what is asked from now on. What is held stays held."""
        self._plans = plans

    # What there is

    def plan_of(self, tenant: str) -> TenantPlan:
        """The tenant's quota and weight; one that is not listed has no quota."""
        return self._plans.get(tenant, NO_QUOTA)

    def weight_of(self, tenant: str) -> int:
        """Its share of a queue in which tenants take turns."""
        return self.plan_of(tenant).weight

    def usage_of(self, tenant: str) -> Usage:
        """What the tenant holds."""
        return self._usage.get(tenant) or Usage()

    def memory_held(self, tenant: str) -> int:
        """Bytes that the quota of memory is compared with: what the tenant's jobs need."""
        return self.usage_of(tenant).memory_bytes

    def tenants(self) -> list[str]:
        """All that have a quota or hold something, sorted."""
        return sorted({*self._plans, *self._usage})

    # Admission

    def refuse(self, task: Task, home: ReplicaSet, now_ms: float) -> Refused | None:
        """Whether the tenant would hold more than it may; `task.memory_bytes` is set by then."""
        plan, usage = self.plan_of(task.tenant), self.usage_of(task.tenant)
        if plan.memory_bytes is not None and task.memory_bytes > plan.memory_bytes:
            message = f"It needs {task.memory_bytes} bytes of memory, and its tenant may hold {plan.memory_bytes}."
            return _refused(task, message, RETRY_QUOTA_MS_MAX, is_final=True)
        found = _over(plan, usage, self.memory_held(task.tenant), task)
        if found is None:
            return None
        what, ends_needed = found
        mean_tokens = usage.expected_tokens / max(usage.jobs, 1)
        line = self._lines[task.tenant]
        wait_ms = line.next_hint_ms(task.task_id, ends_needed, home.forecast.ms_per_token, mean_tokens, now_ms)
        return _refused(task, f"The tenant has its quota of {what}.", wait_ms)

    # The ledger

    def hold(self, task: Task) -> None:
        """A job is accepted, in the step that admits it or takes it up from the disk."""
        if task.tenant not in self._usage:
            self._usage[task.tenant], self._lines[task.tenant] = Usage(), QuotaLine()
        usage = self._usage[task.tenant]
        usage.jobs += 1
        usage.memory_bytes += task.memory_bytes
        usage.expected_tokens += task.expected_tokens

    def release(self, task: Task) -> None:
        """Its end is decided, or it was never stored."""
        usage = self._usage[task.tenant]
        usage.jobs -= 1
        usage.memory_bytes -= task.memory_bytes
        usage.expected_tokens -= task.expected_tokens
        self._lines[task.tenant].running.pop(task.job_id, None)
        if not usage.jobs:
            del self._usage[task.tenant], self._lines[task.tenant]

    def begin_wait(self, task: Task) -> None:
        """It waits, or its record is being written; it may have lost its worker."""
        self._usage[task.tenant].waiting += 1
        self._lines[task.tenant].running.pop(task.job_id, None)

    def end_wait(self, task: Task) -> None:
        """It leaves the queue, or its record is written."""
        self._usage[task.tenant].waiting -= 1

    def begin_run(self, task: Task, now_ms: float) -> None:
        """It leaves the queue for a slot."""
        self.end_wait(task)
        self._lines[task.tenant].running[task.job_id] = now_ms, task.expected_tokens


def memory_of(task: Task, home: ReplicaSet) -> int:
    """Bytes of KV cache that the task needs at most, and of its request. Depends on nothing but the task and its set.

    The exact number of prompt tokens is left aside where the engine counted them: a restart would not know it.
    """
    kv_bytes_per_token = max((member.plan.kv_bytes_per_token for member in home.members), default=0)
    if not kv_bytes_per_token:
        return task.size_bytes  # the same object: 100,000 tasks may wait
    prompt_tokens = min(task.prompt_bytes + PROMPT_TOKENS_EXTRA, task.ctx)
    return kv_bytes_per_token * min(prompt_tokens + task.max_tokens, task.ctx) + task.size_bytes


def _over(plan: TenantPlan, usage: Usage, held_bytes: int, task: Task) -> tuple[str, int] | None:
    """Which quota the task would exceed, and how many jobs have to end before it does not."""
    if plan.concurrent_jobs is not None and usage.jobs >= plan.concurrent_jobs:
        return f"{plan.concurrent_jobs} jobs", usage.jobs + 1 - plan.concurrent_jobs
    if plan.waiting_tasks is not None and usage.waiting >= plan.waiting_tasks:
        return f"{plan.waiting_tasks} waiting tasks", usage.waiting + 1 - plan.waiting_tasks
    if plan.memory_bytes is not None and held_bytes + task.memory_bytes > plan.memory_bytes:
        excess = held_bytes + task.memory_bytes - plan.memory_bytes
        return f"{plan.memory_bytes} bytes of memory", ceil(excess * usage.jobs / max(held_bytes, 1))
    return None


def _refused(task: Task, message: str, retry_after_ms: int, *, is_final: bool = False) -> Refused:
    return Refused(
        code=Code.ADMISSION_REJECT,
        reason=Reason.QUOTA,
        message=message,
        retry_after_ms=retry_after_ms,
        engine=task.engine,
        is_final=is_final,
    )
