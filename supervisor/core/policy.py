"""What a policy plugin is asked, and how its word counts (ORCH-3048). The plugin itself is the runtime's.

A policy is a pure function over an explicit snapshot. It chooses only among what the built-in rules allow: a replica
that could take the task now, and the refusal of a task that would be let in. It can break no bound, cross no device
mask and dispatch to nothing that is not Ready. None of it means: the built-in policy decides.
"""

from typing import Protocol

from msgspec import Struct

from supervisor.core.placement import can_take
from supervisor.core.refusals import Refused
from supervisor.core.replicas import Replica, ReplicaSet
from supervisor.core.tasks import Task
from supervisor.wire.codes import Code, Determinism, Priority, Reason, Workload

ABI_VERSION = 1
RETRY_DEFAULT_MS = 1_000


class TaskFacts(Struct, frozen=True, kw_only=True):
    """What a policy may know of a task; nothing of what it says. `deadline_in_ms` counts from now."""

    tenant: str
    priority: Priority
    workload: Workload
    determinism: Determinism
    max_tokens: int
    expected_tokens: int
    prompt_bytes: int
    attempt: int
    deadline_in_ms: int


class CandidateFacts(Struct, frozen=True, kw_only=True):
    """A replica that could take the task now. `load` counts its taken slots; `is_warm`: it holds the session's KV."""

    pool_id: str
    slots: int
    load: int
    is_warm: bool


class QueueFacts(Struct, frozen=True, kw_only=True):
    """The queue that the task would wait in: waiting tasks and bounds, of its class and in all; sizes in bytes."""

    waiting: int
    capacity: int
    waiting_in_class: int
    capacity_of_class: int
    waiting_bytes: int
    bytes_max: int
    slots: int
    predicted_start_ms: int | None


class PlaceSnapshot(Struct, frozen=True, kw_only=True):
    """Which of these replicas takes the task? `built_in` is the pool that would be taken without a policy."""

    abi: int = ABI_VERSION
    kind: str = "place"
    task: TaskFacts
    candidates: tuple[CandidateFacts, ...]
    built_in: str


class AdmitSnapshot(Struct, frozen=True, kw_only=True):
    """May the task wait?"""

    abi: int = ABI_VERSION
    kind: str = "admit"
    task: TaskFacts
    queue: QueueFacts


class Verdict(Struct, frozen=True):
    """A policy's word on admission; `retry_after_ms` where it refuses."""

    is_admitted: bool
    retry_after_ms: int | None = None


class Policy(Protocol):
    """Same snapshot, same answer. Never raises; None where it has no opinion or none that counts."""

    def place(self, snapshot: PlaceSnapshot) -> str | None:
        """The pool id of one of the candidates."""

    def admit(self, snapshot: AdmitSnapshot) -> Verdict | None:
        """Whether the task is let in."""


def place(
    policy: Policy, task: Task, home: ReplicaSet, built_in: Replica, now_ms: float, *, warm_pool: str | None = None
) -> Replica:
    """The replica that takes the task: the policy's choice, else the built-in one. O(serving members).

    `warm_pool` is the pool whose worker holds the KV of the task's session.
    """
    candidates = {member.pool_id: member for member in home.serving if can_take(task, member)}
    if len(candidates) < 2:
        return built_in
    facts = tuple(_candidate(member, warm_pool) for member in candidates.values())
    snapshot = PlaceSnapshot(task=_facts(task, now_ms), candidates=facts, built_in=built_in.pool_id)
    return candidates.get(policy.place(snapshot) or "", built_in)


def refuse(
    policy: Policy, task: Task, home: ReplicaSet, predicted_start_ms: int | None, now_ms: float
) -> Refused | None:
    """Why the policy keeps out a task that the built-in rules let in; None where it does not."""
    queue = QueueFacts(
        waiting=home.occupied_total,
        capacity=home.capacity_total,
        waiting_in_class=home.occupied(task.priority),
        capacity_of_class=home.capacity[task.priority],
        waiting_bytes=home.waiting.size_bytes + home.reserved_bytes,
        bytes_max=home.bytes_max,
        slots=home.slots_serving,
        predicted_start_ms=predicted_start_ms,
    )
    verdict = policy.admit(AdmitSnapshot(task=_facts(task, now_ms), queue=queue))
    if verdict is None or verdict.is_admitted:
        return None
    return Refused(
        code=Code.ADMISSION_REJECT,
        reason=Reason.POLICY,
        message="The policy of this host keeps the task out for now.",
        retry_after_ms=verdict.retry_after_ms or RETRY_DEFAULT_MS,
        engine=task.engine,
        pool_id=home.members[0].plan.public_id,
    )


def _facts(task: Task, now_ms: float) -> TaskFacts:
    return TaskFacts(
        tenant=task.tenant,
        priority=task.priority,
        workload=task.workload,
        determinism=task.determinism,
        max_tokens=task.max_tokens,
        expected_tokens=task.expected_tokens,
        prompt_bytes=task.prompt_bytes,
        attempt=task.attempt,
        deadline_in_ms=max(round(task.deadline_at_ms - now_ms), 0),
    )


def _candidate(member: Replica, warm_pool: str | None) -> CandidateFacts:
    return CandidateFacts(
        pool_id=member.pool_id, slots=member.slots, load=member.load, is_warm=member.pool_id == warm_pool
    )
