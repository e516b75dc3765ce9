"""Handlers of the data plane: tasks, and what a client may know of pools. They parse, ask the service and translate."""

from aiohttp import web
from msgspec import UNSET, Struct

from supervisor.core.refusals import Refused
from supervisor.http.auth import lacks_priority
from supervisor.http.bodies import Body, invalid
from supervisor.http.call import Call, int_query
from supervisor.wire.codes import Code, Reason, Workload
from supervisor.wire.tasks import RERANK_INPUTS_MIN, SubmitTask

TASKS_PAGE_DEFAULT = 100
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
UNREADY_RETRY_MS = 1000

_SUBMIT = Body(SubmitTask)


class Probe(Struct, kw_only=True):
    """200 of `/healthz` and `/readyz`."""

    status: str


def parse_task(body: bytes) -> SubmitTask | Refused:
    """The task that a body describes."""
    task = _SUBMIT.parse(body)
    return task if isinstance(task, Refused) else disagreement(task) or task


def disagreement(task: SubmitTask) -> Refused | None:
    """What no field says alone (ORCH-3015): what the workload takes; expected_tokens <= max_tokens <= ctx."""
    if (task.prompt is UNSET) == (task.inputs is UNSET):
        return invalid("Exactly one of /prompt and /inputs must be there.", Reason.FIELD)
    if (problem := _mismatch(task)) is not None:
        return invalid(problem, Reason.FIELD)
    if task.max_tokens > task.ctx:
        return invalid("/max_tokens is larger than /ctx.", Reason.FIELD)
    if task.expected_tokens is not UNSET and task.expected_tokens > task.max_tokens:
        return invalid("/expected_tokens is larger than /max_tokens.", Reason.FIELD)
    return None


def _mismatch(task: SubmitTask) -> str | None:
    """What of the task its workload does not take: where nothing is decoded, nothing is sampled and nothing stops."""
    if task.workload is Workload.COMPLETION:
        is_prompted = task.prompt is not UNSET
        return None if is_prompted else "/prompt is what a completion completes; /inputs is for the other workloads."
    if task.workload is Workload.RERANK and (task.inputs is UNSET or len(task.inputs) < RERANK_INPUTS_MIN):
        return "/inputs of a rerank is the query and then at least one document."
    for name in ("seed", "stop", "sampler"):
        if getattr(task, name) is not UNSET:
            return f"/{name} is for completions."
    return None


async def submit(call: Call) -> web.StreamResponse:
    """`POST /v1/tasks`."""
    body = await call.read_body()
    if isinstance(body, Refused):
        return call.refuse(body)
    task = parse_task(body)
    if isinstance(task, Refused):
        return call.refuse(task)
    if (refused := lacks_priority(call.caller, task.priority)) is not None:
        return call.refuse(refused)
    accepted = await call.service.submit(call.caller, task, len(body))
    if isinstance(accepted, Refused):
        return call.refuse(accepted)
    queue = {"X-Queue-Position": str(accepted.queue_position)}
    if accepted.predicted_start_ms is not None:
        queue["X-Queue-ETA-Ms"] = str(accepted.predicted_start_ms)
    return call.reply(accepted, 202, queue)


async def show_task(call: Call) -> web.StreamResponse:
    """`GET /v1/tasks/{id}`."""
    return call.answer(call.service.task(call.caller, call.ident))


async def list_tasks(call: Call) -> web.StreamResponse:
    """`GET /v1/tasks`."""
    limit = int_query(call, "limit", TASKS_PAGE_DEFAULT, 1, call.edge.limits.tasks_page_max)
    if isinstance(limit, Refused):
        return call.refuse(limit)
    return call.reply(call.service.tasks(call.caller, limit))


async def cancel(call: Call) -> web.StreamResponse:
    """`POST /v1/tasks/{id}/cancel`. A body is not looked at."""
    emitted = await call.service.cancel(call.caller, call.ident)
    if isinstance(emitted, Refused):
        return call.refuse(emitted)
    return web.Response(status=204, headers={**call.headers, "X-Tokens-Emitted": str(emitted)})


async def pool_health(call: Call) -> web.StreamResponse:
    """`GET /v1/pools/{id}/health`."""
    return call.answer(call.service.pool_health(call.ident))


async def replica_sets(call: Call) -> web.StreamResponse:
    """`GET /v1/replicasets`."""
    return call.reply(call.service.replica_sets())


async def live(call: Call) -> web.StreamResponse:
    """`GET /healthz`: the event loop turns."""
    return call.reply(Probe(status="live"))


async def ready(call: Call) -> web.StreamResponse:
    """`GET /readyz`: tasks are accepted and at least one pool can serve them."""
    if call.service.is_ready():
        return call.reply(Probe(status="ready"))
    message = "No pool is ready to serve."
    return call.refuse(Refused(code=Code.POOL_UNREADY, message=message, retry_after_ms=UNREADY_RETRY_MS))


async def metrics(call: Call) -> web.StreamResponse:
    """`GET /metrics`."""
    return web.Response(body=call.service.metrics_page(), headers={**call.headers, "Content-Type": METRICS_TYPE})


async def openapi(call: Call) -> web.StreamResponse:
    """`GET /openapi.json`."""
    document = call.edge.keyed_document if call.edge.gate.needs_key else call.edge.document
    return web.Response(body=document, headers={**call.headers, "Content-Type": "application/json"})
