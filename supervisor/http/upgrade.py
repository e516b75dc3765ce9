"""Handlers of `/v1/upgrade`: only over the control socket, as the daemon and its operator share the host."""

from aiohttp import web

from supervisor.core.refusals import Refused
from supervisor.http.bodies import Body
from supervisor.http.call import Call
from supervisor.wire.upgrades import UpgradeRequest

_UPGRADE = Body(UpgradeRequest)


async def begin(call: Call) -> web.StreamResponse:
    """`POST /v1/upgrade`: 202 once the new program was tried and the daemon comes to rest."""
    body = await call.read_body()
    request = body if isinstance(body, Refused) else _UPGRADE.parse(body)
    if isinstance(request, Refused):
        return call.refuse(request)
    return call.answer(await call.service.upgrade(request.deadline_ms), 202)


async def show(call: Call) -> web.StreamResponse:
    """`GET /v1/upgrade`."""
    return call.reply(call.service.upgrade_status())
