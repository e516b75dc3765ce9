"""Handlers of sessions: look at one's own, list them, delete one. They parse, ask the service and translate.

A session is made by a task, never by looking at it. An id that is unknown, another tenant's or no UUID at all gets the
same answer.
"""

from aiohttp import web

from supervisor.core.refusals import Refused
from supervisor.http.call import Call, int_query

SESSIONS_PAGE_DEFAULT = 100


async def show_session(call: Call) -> web.StreamResponse:
    """`GET /v1/sessions/{id}`."""
    return call.answer(call.service.session(call.caller, call.ident))


async def list_sessions(call: Call) -> web.StreamResponse:
    """`GET /v1/sessions`."""
    limit = int_query(call, "limit", SESSIONS_PAGE_DEFAULT, 1, call.edge.limits.tasks_page_max)
    if isinstance(limit, Refused):
        return call.refuse(limit)
    return call.reply(call.service.sessions(call.caller, limit))


async def delete_session(call: Call) -> web.StreamResponse:
    """`DELETE /v1/sessions/{id}`: again 204 for one that was deleted, until it would have expired anyway."""
    refused = call.service.delete_session(call.caller, call.ident)
    if refused is not None:
        return call.refuse(refused)
    return web.Response(status=204, headers=call.headers)
