"""Handlers of leases of GPUs: take, look, give back. They parse, ask the service and translate."""

from aiohttp import web

from supervisor.core.refusals import Refused
from supervisor.http.bodies import Body
from supervisor.http.call import Call
from supervisor.wire.leases import LeaseRequest

_LEASE = Body(LeaseRequest)


async def take(call: Call) -> web.StreamResponse:
    """`POST /v1/leases`."""
    body = await call.read_body()
    request = body if isinstance(body, Refused) else _LEASE.parse(body)
    if isinstance(request, Refused):
        return call.refuse(request)
    return await call.answer_kept(await call.service.take_lease(call.caller, request), 202)


async def list_leases(call: Call) -> web.StreamResponse:
    """`GET /v1/leases`."""
    return call.reply(call.service.leases())


async def show(call: Call) -> web.StreamResponse:
    """`GET /v1/leases/{id}`."""
    return call.answer(call.service.lease(call.ident))


async def end(call: Call) -> web.StreamResponse:
    """`DELETE /v1/leases/{id}`."""
    refused = call.service.end_lease(call.ident)
    if refused is not None:
        return call.refuse(refused)
    await call.service.wishes_stored()
    return web.Response(status=204, headers=call.headers)
