"""Tasks as the daemon makes them of a request."""

import uuid

from msgspec import UNSET, structs

from supervisor.core.tasks import Task
from supervisor.runtime.caller import Caller
from supervisor.runtime.task_codec import new_task
from supervisor.wire.codes import Determinism, Engine, Priority, Workload
from supervisor.wire.tasks import SubmitTask

REQUEST = SubmitTask(
    task_id=str(uuid.uuid4()),
    session_id=str(uuid.uuid4()),
    workload=Workload.COMPLETION,
    model_ref="m",
    engine=Engine.LLAMACPP,
    ctx=512,
    priority=Priority.BATCH,
    max_tokens=16,
    deadline_ms=1000,
    prompt="été",
)


def a_task(workload: Workload, *inputs: str, ctx: int = 512) -> Task:
    """One of 16 tokens at most; without inputs it has the prompt."""
    wire = structs.replace(REQUEST, workload=workload, ctx=ctx)
    if inputs:
        wire = structs.replace(wire, prompt=UNSET, inputs=list(inputs))
    return new_task(Caller("tenant"), "job", wire, Determinism.STRICT, 0.0)[0]
