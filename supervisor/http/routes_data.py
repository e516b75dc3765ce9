"""The routes of the data plane, and those that say how the daemon is."""

from supervisor.http import public, sessions, sse
from supervisor.http.route import ANY, BODY_REFUSALS, DATA, EVENT_STREAM, METRICS, Parameter, Route
from supervisor.wire.pools import PoolHealth, ReplicaSetPage
from supervisor.wire.sessions import SessionPage, SessionView
from supervisor.wire.tasks import Accepted, SubmitTask, TaskPage, TaskView

_LIMIT = Parameter("limit", "query", "integer", "How many at most.", 1, "tasks_page_max")
_LAST_EVENT = Parameter(
    "Last-Event-ID",
    "header",
    "integer",
    "Replay starts after the frame with this id.",
    0,
    10**sse.EVENT_ID_DIGITS_MAX - 1,
)

DATA_ROUTES = (
    Route(
        "POST",
        "/v1/tasks",
        public.submit,
        "Submit a task; it is on disk when the answer comes.",
        202,
        SubmitTask,
        Accepted,
        refusals=(*BODY_REFUSALS, 409, 429, 503),
        reply_headers=("X-Queue-Position", "X-Queue-ETA-Ms"),
        scopes=DATA,
    ),
    Route(
        "GET",
        "/v1/tasks",
        public.list_tasks,
        "The caller's tasks, newest first.",
        reply=TaskPage,
        refusals=(400,),
        parameters=(_LIMIT,),
        scopes=DATA,
    ),
    Route("GET", "/v1/tasks/{id}", public.show_task, "One task.", reply=TaskView, refusals=(410,), scopes=DATA),
    Route(
        "GET",
        "/v1/tasks/{id}/stream",
        sse.stream,
        "The frames of a task, as server-sent events.",
        media_type=EVENT_STREAM,
        refusals=(400, 410, 503),
        parameters=(_LAST_EVENT,),
        scopes=DATA,
    ),
    Route(
        "POST",
        "/v1/tasks/{id}/cancel",
        public.cancel,
        "Cancel a task; harmless on a finished one.",
        204,
        refusals=(410, 503),
        reply_headers=("X-Tokens-Emitted",),
        scopes=DATA,
    ),
    Route(
        "GET",
        "/v1/sessions",
        sessions.list_sessions,
        "The caller's sessions, last used first.",
        reply=SessionPage,
        refusals=(400,),
        parameters=(_LIMIT,),
        scopes=DATA,
    ),
    Route("GET", "/v1/sessions/{id}", sessions.show_session, "One session.", reply=SessionView, scopes=DATA),
    Route(
        "DELETE",
        "/v1/sessions/{id}",
        sessions.delete_session,
        "End a session and evict its KV; harmless on one that was deleted.",
        204,
        scopes=DATA,
    ),
    Route(
        "GET",
        "/v1/pools/{id}/health",
        public.pool_health,
        "One pool and its figures.",
        reply=PoolHealth,
        scopes=DATA,
    ),
    Route(
        "GET",
        "/v1/replicasets",
        public.replica_sets,
        "Replica sets and their load.",
        reply=ReplicaSetPage,
        scopes=DATA,
    ),
    Route("GET", "/healthz", public.live, "Whether the daemon lives.", reply=public.Probe, scopes=ANY),
    Route("GET", "/readyz", public.ready, "Whether a pool can serve.", reply=public.Probe, refusals=(503,), scopes=ANY),
    Route(
        "GET",
        "/metrics",
        public.metrics,
        "Prometheus metrics.",
        media_type="text/plain; version=0.0.4",
        scopes=METRICS,
    ),
    Route("GET", "/openapi.json", public.openapi, "This document.", scopes=ANY),
)
