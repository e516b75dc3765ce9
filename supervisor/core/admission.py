"""Whether a submitted task is let in, and where it waits. Gives a value; changes only what is promised: places, tokens.

1. The disk takes records and the daemon is not stopping.
2. A pool serves this engine and model; it does this workload, this profile and at least this `ctx` (ORCH-3014).
3. A set of such pools serves now, or could not yet: POOL_UNREADY, POOL_UNAVAILABLE; or all that are Ready are ejected
   by their breakers: REPLICA_EXHAUSTED. Where a pool makes way for another revision of itself, one of both will serve.
   While a canary takes a share of the alias, its side is that of the session.
   A task that is larger than a whole queue is refused for good before that.
4. Its client's bucket has a token for it (ORCH-3006); a submit goes past here once.
5. Prompt and generation fit the context of a slot as the engine reports it (ORCH-3015): the prompt's bytes bound its
   tokens, so only a prompt that might not fit is tokenized, and only where rules 6 to 8 let the task in.
6. Its tenant stays within its quotas (ORCH-3036).
7. It would start before its deadline.
8. There is room that is promised to no other, or the full-queue policy makes room (ORCH-3004, ORCH-3005).
9. The policy plugin, if there is one, has nothing against it (ORCH-3048).
"""

from math import ceil

from msgspec import Struct

from supervisor.core import full_queue, placement
from supervisor.core import policy as plugin
from supervisor.core.lifecycle import Phase
from supervisor.core.promises import AHEAD_MS_MAX
from supervisor.core.quotas import PROMPT_TOKENS_EXTRA, memory_of
from supervisor.core.refusals import Refused
from supervisor.core.replicas import Replica, ReplicaSet, Wanted
from supervisor.core.split import narrow
from supervisor.core.state import State
from supervisor.core.tasks import Task
from supervisor.core.waitlist import BATCH_EVERY
from supervisor.wire.codes import Code, FullPolicy, Priority, Reason

RETRY_LOADING_MS = 2_000
RETRY_UNAVAILABLE_MS = 10_000
RETRY_DISK_MS = 5_000
COUNTING_MAX = 256
"""Prompts that engines tokenize for admission at one time, on the whole host."""
RETRY_COUNTING_MS = 1_000
"""An engine has a second to tokenize one."""


class Admitted(Struct, frozen=True):
    """The task may wait in this set; `victim` is dropped for it."""

    home: ReplicaSet
    queue_position: int
    predicted_start_ms: int | None
    victim: Task | None = None
    policy: FullPolicy | None = None


class MustCount(Struct, frozen=True):
    """The prompt might not fit: this replica's engine has to tokenize it first."""

    replica: Replica


def admit(state: State, task: Task, now_ms: float, prompt_tokens: int | None = None) -> Admitted | MustCount | Refused:
    """Decide on a task; `prompt_tokens` is given once the engine has counted."""
    if refused := _refuse_by_host(state):  # 1
        return refused
    homes = _feasible_sets(state, task)  # 2
    if isinstance(homes, Refused):
        return homes
    homes = narrow(homes, state.splits.get((task.engine, task.model_ref)), task.bucket)
    home = _serving_set(homes) or _promised_set(homes)  # 3
    if home is None and any(each.serving for each in homes):
        return _refuse_ejected([member for each in homes for member in each.serving], now_ms)
    if home is None:
        return refuse_unserved(state, [member for each in homes for member in each.members], now_ms)
    if prompt_tokens is None and (refused := state.rates.refuse(task, home, now_ms)):  # 4
        return refused
    over = _check_budget(task, home, prompt_tokens)  # 5
    if isinstance(over, Refused):
        return over
    return _admit_to(state, task, home, now_ms, over)


def _admit_to(
    state: State, task: Task, home: ReplicaSet, now_ms: float, must_count: MustCount | None
) -> Admitted | MustCount | Refused:
    """The rules that ask what the set and the tenant hold; the engine counts only what all but the policy let in."""
    task.memory_bytes = memory_of(task, home)
    if refused := state.quotas.refuse(task, home, now_ms):  # 6
        return refused
    admitted = _make_room(task, home, now_ms)  # 7, 8
    if isinstance(admitted, Refused):
        return admitted
    if must_count is not None:  # 5
        return must_count if len(state.counting) < COUNTING_MAX else _refuse_counting(task, home)
    if state.policy is None:
        return admitted
    return plugin.refuse(state.policy, task, home, admitted.predicted_start_ms, now_ms) or admitted  # 9


def _refuse_by_host(state: State) -> Refused | None:
    if state.halt_deadline_ms is not None:
        return Refused(
            code=Code.POOL_UNAVAILABLE,
            reason=Reason.SHUTDOWN,
            message="The daemon is stopping.",
            retry_after_ms=RETRY_LOADING_MS,
        )
    if not state.is_journal_writable:
        return Refused(
            code=Code.POOL_UNAVAILABLE,
            reason=Reason.DISK,
            message="New tasks cannot be stored now.",
            retry_after_ms=RETRY_DISK_MS,
        )
    return None


def _invalid(task: Task, reason: Reason, message: str) -> Refused:
    return Refused(code=Code.INVALID_PARAMS, reason=reason, message=message, engine=task.engine)


def _feasible_sets(state: State, task: Task) -> tuple[ReplicaSet, ...] | Refused:
    """The sets that could serve the task; the members of one are alike in all that is asked here."""
    homes = tuple(home for home in state.routes.get((task.engine, task.model_ref), ()) if home.members)
    if not homes:
        return _invalid(task, Reason.MODEL, f"No pool serves this model with engine {task.engine}.")
    homes = tuple(home for home in homes if task.workload in home.members[0].plan.workloads)
    if not homes:
        return _invalid(task, Reason.WORKLOAD, f"No pool of this model does {task.workload}.")
    homes = tuple(home for home in homes if task.sampler_profile_version in (None, home.key.sampler_profile_version))
    if not homes:
        return _invalid(task, Reason.FIELD, "sampler_profile_version: no pool of this model has this profile.")
    limits = [home.key.ctx or home.members[0].ctx_per_slot or task.ctx for home in homes]
    fitting = tuple(home for home, limit in zip(homes, limits, strict=True) if task.ctx <= limit)
    if not fitting:
        return _invalid(task, Reason.CTX, f"ctx: {task.ctx} is above the model's limit of {max(limits)} tokens.")
    holding = tuple(home for home in fitting if task.size_bytes <= home.bytes_max)
    return holding or _refuse_size(task, fitting)


def _refuse_size(task: Task, homes: tuple[ReplicaSet, ...]) -> Refused:
    """No queue could ever hold it; where pools are still on their way into one set, together they might."""
    bytes_max = sum(home.bytes_max for home in homes)
    is_final = task.size_bytes > bytes_max
    return Refused(
        code=Code.ADMISSION_REJECT,
        reason=Reason.QUEUE_BYTES,
        message=f"It has {task.size_bytes} bytes, and the queues hold {bytes_max} at most.",
        retry_after_ms=AHEAD_MS_MAX if is_final else RETRY_UNAVAILABLE_MS,
        policy=homes[0].members[0].plan.full_policy,
        engine=task.engine,
        pool_id=homes[0].members[0].plan.public_id,
        is_final=is_final,
    )


def _serving_set(homes: tuple[ReplicaSet, ...]) -> ReplicaSet | None:
    """The set with the least work per slot, running or waiting, then the smallest context, then the name."""
    serving = [home for home in homes if home.can_serve]
    if len(serving) == 1:
        return serving[0]
    return min(
        serving,
        key=lambda home: (home.work_total / home.slots_serving, home.key.ctx or 0, home.set_id),
        default=None,
    )


def _promised_set(homes: tuple[ReplicaSet, ...]) -> ReplicaSet | None:
    """A set whose pool makes way for another revision: one of both will serve, so what is asked for it may wait."""
    return next((home for home in homes if any(_will_be_served(member) for member in home.members)), None)


def _will_be_served(member: Replica) -> bool:
    """Promised, unless an operator drained the pool since, or its GPU was leased."""
    return member.is_promised and member.wanted is Wanted.SERVE and member.leased_to is None


def _refuse_ejected(serving: list[Replica], now_ms: float) -> Refused:
    """Ready ones exist, and all are ejected: worth a try when the first of them admits a probe."""
    first = min(serving, key=lambda member: (member.breaker.due_ms or 0, member.pool_id))
    return Refused(
        code=Code.REPLICA_EXHAUSTED,
        reason=Reason.EJECTED,
        message=f"Every ready replica of this model fails; pool {first.plan.public_id} is tried again first.",
        retry_after_ms=max(ceil((first.breaker.due_ms or 0) - now_ms), 1),
        engine=first.plan.engine,
        pool_id=first.plan.public_id,
    )


def refuse_unserved(state: State, pools: list[Replica], now_ms: float) -> Refused:
    """Why nothing serves, and when to try again: the most hopeful pool speaks for all."""
    best = min(pools, key=lambda pool: (not pool.can_come_back, pool.wanted is not Wanted.DRAIN, pool.pool_id))
    wait_ms = max(best.due_ms - now_ms, 0) if best.due_ms is not None and best.phase is Phase.BACKOFF else 0
    code, reason, message, retry_ms = _describe_unserved(state, best, wait_ms)
    return Refused(
        code=code,
        reason=reason,
        message=message,
        retry_after_ms=retry_ms,
        engine=best.plan.engine,
        pool_id=best.plan.public_id,
    )


def _describe_unserved(state: State, pool: Replica, wait_ms: float) -> tuple[Code, Reason, str, int]:
    name = pool.plan.public_id
    if pool.leased_to is not None:
        return Code.POOL_UNAVAILABLE, Reason.LEASED, f"The GPU of pool {name} is leased.", RETRY_UNAVAILABLE_MS
    if pool.phase is Phase.UNPLACED:
        reason = Reason.NO_GPU if state.gpu_cause else Reason.GPU_LOST
        return Code.POOL_UNAVAILABLE, reason, f"Pool {name} has no usable GPU.", RETRY_UNAVAILABLE_MS
    if pool.wanted is Wanted.DRAIN:
        return Code.POOL_UNREADY, Reason.DRAINING, f"Pool {name} is drained.", RETRY_UNAVAILABLE_MS
    if pool.phase in (Phase.BROKEN, Phase.OFF):
        return Code.POOL_UNAVAILABLE, Reason.ENGINE, f"Pool {name} failed too often.", RETRY_UNAVAILABLE_MS
    retry_ms = round(wait_ms) + RETRY_LOADING_MS
    return Code.POOL_UNREADY, Reason.LOADING, f"Pool {name} is not ready yet.", retry_ms


def _check_budget(task: Task, home: ReplicaSet, prompt_tokens: int | None) -> MustCount | Refused | None:
    ctx = min(home.ctx_per_slot or max(member.ctx_per_slot for member in home.members), task.ctx)
    room = ctx - task.max_tokens
    if prompt_tokens is None:
        if task.prompt_bytes + PROMPT_TOKENS_EXTRA <= room:
            return None
        if room > 0 and not home.can_serve:
            return _refuse_uncounted(home)
        if room > 0:
            return MustCount(next(member for member in home.serving if not member.breaker.is_ejecting))
    elif prompt_tokens <= room:
        return None
    return _invalid(
        task,
        Reason.TOKEN_BUDGET,
        f"Prompt{f' of {prompt_tokens} tokens' if prompt_tokens else ''} and max_tokens {task.max_tokens} do not fit "
        f"a context of {ctx} tokens.",
    )


def _refuse_uncounted(home: ReplicaSet) -> Refused:
    member = home.members[0]
    return Refused(
        code=Code.POOL_UNREADY,
        reason=Reason.LOADING,
        message=f"Pool {member.plan.public_id} cannot tokenize the prompt before it is ready again.",
        retry_after_ms=RETRY_LOADING_MS,
        engine=member.plan.engine,
        pool_id=member.plan.public_id,
    )


def _refuse_counting(task: Task, home: ReplicaSet) -> Refused:
    message = "Too many prompts are being tokenized."
    return _full(task, home, Code.ADMISSION_REJECT, Reason.QUEUE_FULL, message, RETRY_COUNTING_MS)


def predict_start(task: Task, home: ReplicaSet, now_ms: float) -> int | None:
    """Milliseconds until a newcomer starts; None rather than a guess."""
    if not home.occupied_total and placement.has_slot(task, home):
        return 0
    start_ms = home.forecast.start_in_ms(_tokens_ahead(task, home), home.slots_serving, home.in_service, now_ms)
    if start_ms is None or not all(placement.needs_worker_alone(task, member) for member in home.serving):
        return start_ms
    return max(start_ms, home.forecast.alone_in_ms(home.in_service, now_ms))


def _tokens_ahead(task: Task, home: ReplicaSet) -> float:
    """Tokens expected of the tasks that go first, as the floor of batch mixes the classes.

    While both wait, `BATCH_EVERY` - 1 interactive tasks are dispatched for each of batch.
    """
    own, each = home.ahead_in_class(task), BATCH_EVERY - 1
    other = Priority.BATCH if task.priority is Priority.INTERACTIVE else Priority.INTERACTIVE
    others = home.occupied(other)
    mixed_in = own.tasks / each if other is Priority.BATCH else each * (own.tasks + 1)
    return own.expected_tokens + min(mixed_in, others) * home.expected_tokens(other) / max(others, 1)


def _make_room(task: Task, home: ReplicaSet, now_ms: float) -> Admitted | Refused:
    predicted = predict_start(task, home, now_ms)
    late_ms = full_queue.too_late_ms(task, home, predicted, now_ms)
    if late_ms is not None:  # 7
        message, retry_ms = "It would not start before its deadline.", full_queue.retry_late_ms(late_ms)
        return _full(task, home, Code.ADMISSION_REJECT, Reason.DEADLINE, message, retry_ms)
    reason = full_queue.bound_hit(task, home, now_ms)  # 8
    if reason is None:
        return Admitted(home, _position(task, home), predicted)
    return _apply_policy(task, home, reason, predicted, now_ms)


def _goes_before(other: Priority, newcomer: Priority) -> bool:
    """Whether a task of class `other` that is there already goes before a newcomer, the floor of batch left aside."""
    return other is newcomer or other is Priority.INTERACTIVE


def _position(task: Task, home: ReplicaSet) -> int:
    """The 0-based number of tasks that wait, or will as soon as their record is on disk, and go before this one."""
    own = home.ahead_in_class(task).tasks
    return own if task.priority is Priority.INTERACTIVE else own + home.occupied(Priority.INTERACTIVE)


def _apply_policy(
    task: Task, home: ReplicaSet, reason: Reason, predicted: int | None, now_ms: float
) -> Admitted | Refused:
    policy = home.members[0].plan.full_policy
    code, victim = Code.ADMISSION_REJECT, None
    match policy:
        case FullPolicy.REJECT:
            pass
        case FullPolicy.DROP_LRU:
            is_class_full = home.occupied(task.priority) >= home.capacity[task.priority]
            code, victim = Code.QUEUE_FULL_DROP_LRU, home.waiting.oldest(task.priority if is_class_full else None)
        case FullPolicy.SHED_LOW_PRIORITY:
            victim = home.waiting.newest_below(task.priority)
    if full_queue.has_real_room(task, home):  # it is kept for others, and nobody is dropped for that
        victim = None
    if victim is not None and _fits_without(victim, task, home):
        position = max(_position(task, home) - _goes_before(victim.priority, task.priority), 0)
        return Admitted(home, position, predicted, victim, policy)
    return _full(task, home, code, reason, "The queue is full.", full_queue.retry_in_ms(task, home, reason, now_ms))


def _fits_without(victim: Task, task: Task, home: ReplicaSet) -> bool:
    """Whether dropping the one victim is enough; a newcomer never drops two."""
    size = home.waiting.size_bytes + home.reserved_bytes - victim.size_bytes + task.size_bytes
    own = home.occupied(task.priority) - (victim.priority is task.priority)
    return size <= home.bytes_max and home.occupied_total <= home.capacity_total and own < home.capacity[task.priority]


def _full(task: Task, home: ReplicaSet, code: Code, reason: Reason, message: str, retry_ms: int) -> Refused:
    return Refused(
        code=code,
        reason=reason,
        message=message,
        retry_after_ms=retry_ms,
        policy=home.members[0].plan.full_policy,
        engine=task.engine,
        pool_id=home.members[0].plan.public_id,
    )
