"""Turns what stands on the command line into a task. Decides the engine and the context where the user left them open.

Pure: the status of the host is an argument.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from msgspec import UNSET, UnsetType

from orchctl.exits import ExitCode, VerbError, usage
from supervisor.wire.codes import Determinism, Engine, KvHint, Priority, Workload
from supervisor.wire.pools import HostStatus, PoolHealth
from supervisor.wire.tasks import UUID_PATTERN, Sampler, SubmitTask

MAX_TOKENS_DEFAULT = 256


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked about: one text to complete; for another workload the prompt, where there is one, and `inputs`."""

    prompt: str | None
    workload: Workload = Workload.COMPLETION
    inputs: Sequence[str] = ()

    @property
    def is_completion(self) -> bool:
        """Whether text is generated."""
        return self.workload is Workload.COMPLETION

    @property
    def texts(self) -> list[str]:
        """All of them, in order."""
        return [*([] if self.prompt is None else [self.prompt]), *self.inputs]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user said; None where nothing was said. `deadline_ms` counts from admission."""

    subject: Subject
    task_id: str
    session_id: str
    deadline_ms: int
    model: str | None = None
    engine: Engine | None = None
    ctx: int | None = None
    max_tokens: int | None = None
    priority: Priority = Priority.INTERACTIVE
    seed: int | UnsetType = UNSET
    determinism: Determinism | UnsetType = UNSET
    stop: Sequence[str] = ()
    sampler: Sampler | UnsetType = UNSET
    kv_hint: KvHint | UnsetType = UNSET

    @property
    def is_complete(self) -> bool:
        """Whether the task can be written without a look at the host."""
        return self.model is not None and self.engine is not None and self.ctx is not None


def plan_task(wish: Wish, status: HostStatus | None) -> SubmitTask:
    """The task to hand in. `status` may be None for a complete wish. Raises VerbError.

    1. model: the one asked for, else the only one here; 2. engine: the one asked for, else the only one that serves
    the model; 3. ctx: the largest of the pools that remain; 4. max_tokens: 256, or the context where that is less, and
    1 where nothing is generated.
    """
    model, engine, ctx = wish.model, wish.engine, wish.ctx
    if model is None or engine is None or ctx is None:
        assert status is not None
        model = model or _only_model(status.pools)
        pools = _serving(status.pools, model)
        engine = engine or _only_engine(pools, model)
        ctx = ctx or _largest_ctx(pools, engine, model)
    task = SubmitTask(
        task_id=wish.task_id,
        session_id=wish.session_id,
        workload=wish.subject.workload,
        model_ref=model,
        engine=engine,
        ctx=ctx,
        priority=wish.priority,
        max_tokens=_max_tokens(wish, ctx),
        deadline_ms=wish.deadline_ms,
        prompt=wish.subject.texts[0] if wish.subject.is_completion else UNSET,
        inputs=UNSET if wish.subject.is_completion else wish.subject.texts,
        seed=wish.seed,
        determinism=wish.determinism,
        stop=list(wish.stop) if wish.stop else UNSET,
        sampler=wish.sampler,
        kv_hint=wish.kv_hint,
    )
    return _checked(task)


def _max_tokens(wish: Wish, ctx: int) -> int:
    if wish.max_tokens is not None:
        return wish.max_tokens
    return min(MAX_TOKENS_DEFAULT, ctx) if wish.subject.is_completion else 1


def task_id_of(text: str, option: str) -> str:
    """A UUID in the form that the daemon wants. Raises a usage VerbError that names `option`."""
    lowered = text.strip().lower()
    if not re.match(UUID_PATTERN, lowered):
        raise usage(f"{option} is a UUID, not {text!r}", "copy it from `orchctl submit --no-wait`")
    return lowered


def _only_model(pools: Sequence[PoolHealth]) -> str:
    models = sorted({pool.model_ref for pool in pools})
    if len(models) != 1:
        raise usage("--model is needed, this host has " + (", ".join(models) or "none yet"), "name one of them")
    return models[0]


def _serving(pools: Sequence[PoolHealth], model: str) -> list[PoolHealth]:
    serving = [pool for pool in pools if model in (pool.model_ref, pool.model_digest)]
    if not serving:
        models = ", ".join(sorted({pool.model_ref for pool in pools})) or "none"
        raise VerbError(
            ExitCode.FAILED, f"no pool serves the model {model} (the models here: {models})", "see `orchctl status`"
        )
    return serving


def _only_engine(pools: Sequence[PoolHealth], model: str) -> Engine:
    engines = {pool.engine for pool in pools}
    if len(engines) > 1:
        choices = ", ".join(f"{pool.engine} (pool {pool.pool_id})" for pool in pools)
        raise usage(f"the model {model} is served by {choices}", "choose one with `--engine`")
    return engines.pop()


def _largest_ctx(pools: Sequence[PoolHealth], engine: Engine, model: str) -> int:
    sizes = [pool.ctx for pool in pools if pool.engine is engine]
    if not sizes:
        raise VerbError(ExitCode.FAILED, f"no {engine} pool serves the model {model}", "see `orchctl status`")
    return max(sizes)


def _checked(task: SubmitTask) -> SubmitTask:
    """The task, within the bounds of the public schema."""
    try:
        return msgspec.json.decode(msgspec.json.encode(task), type=SubmitTask)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        field = where.rstrip("`").removeprefix("sampler.") or "task"
        raise usage(f"{field.replace('_', '-')}: {what[:1].lower()}{what[1:]}", "see `orchctl submit --help`") from None
    except UnicodeEncodeError:
        raise usage("the prompt is not valid UTF-8", "convert it first, for example with iconv") from None
