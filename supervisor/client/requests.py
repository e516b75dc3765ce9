"""New tasks, with ids of their own and sensible values for what a caller seldom says. Decides nothing else.

Any other field of `SubmitTask` can be set on what comes back. `ctx` and `max_tokens` are tokens, `deadline_ms` counts
from admission; the daemon checks every bound.
"""

import uuid
from collections.abc import Sequence
from typing import TypedDict, Unpack

from supervisor.wire.codes import Engine, Priority, Workload
from supervisor.wire.tasks import SubmitTask

MAX_TOKENS_DEFAULT = 256
DEADLINE_MS_DEFAULT = 300_000


class Wanted(TypedDict, total=False):
    """What may be said about a task of any kind; `session_id` is a new one where it is left out."""

    engine: Engine
    priority: Priority
    deadline_ms: int
    session_id: str


def new_completion(
    prompt: str, *, model_ref: str, ctx: int, max_tokens: int = MAX_TOKENS_DEFAULT, **wanted: Unpack[Wanted]
) -> SubmitTask:
    """A task that goes on with the prompt. `max_tokens` is cut to `ctx`."""
    task = _new(Workload.COMPLETION, model_ref, ctx, wanted)
    task.prompt = prompt
    task.max_tokens = min(max_tokens, ctx)
    return task


def new_embedding(texts: Sequence[str], *, model_ref: str, ctx: int, **wanted: Unpack[Wanted]) -> SubmitTask:
    """A task that turns each text into a vector; each must fit `ctx` by itself."""
    task = _new(Workload.EMBEDDING, model_ref, ctx, wanted)
    task.inputs = list(texts)
    return task


def new_rerank(
    query: str, documents: Sequence[str], *, model_ref: str, ctx: int, **wanted: Unpack[Wanted]
) -> SubmitTask:
    """A task that says how well each document fits the query; each must fit `ctx` together with it."""
    task = _new(Workload.RERANK, model_ref, ctx, wanted)
    task.inputs = [query, *documents]
    return task


def _new(workload: Workload, model_ref: str, ctx: int, wanted: Wanted) -> SubmitTask:
    return SubmitTask(
        task_id=str(uuid.uuid4()),
        session_id=wanted.get("session_id") or str(uuid.uuid4()),
        workload=workload,
        model_ref=model_ref,
        engine=wanted.get("engine", Engine.LLAMACPP),
        ctx=ctx,
        priority=wanted.get("priority", Priority.INTERACTIVE),
        max_tokens=1,
        deadline_ms=wanted.get("deadline_ms", DEADLINE_MS_DEFAULT),
    )
