"""Handlers of changes: reload, canary, rollback, rollout, configuration. They parse, ask the service and translate."""

from typing import TypeVar

from aiohttp import web
from msgspec import Struct

from supervisor.core.refusals import Refused
from supervisor.http.bodies import Body
from supervisor.http.call import Call
from supervisor.wire.outlook import OutlookRequest
from supervisor.wire.rollouts import CanaryRequest, ConfigReloadRequest, ReloadRequest, ShareRequest

T = TypeVar("T", bound=Struct)

_RELOAD = Body(ReloadRequest)
_CANARY = Body(CanaryRequest)
_SHARE = Body(ShareRequest)
_CONFIG = Body(ConfigReloadRequest)
_OUTLOOK = Body(OutlookRequest)


async def reload(call: Call) -> web.StreamResponse:
    """`POST /v1/pools/{id}/reload`."""
    request = await _read(call, _RELOAD)
    if isinstance(request, Refused):
        return call.refuse(request)
    return await call.answer_kept(await call.service.reload_pool(call.ident, request), 202)


async def canary(call: Call) -> web.StreamResponse:
    """`POST /v1/pools/{id}/canary`."""
    request = await _read(call, _CANARY)
    if isinstance(request, Refused):
        return call.refuse(request)
    return await call.answer_kept(await call.service.start_canary(call.ident, request), 202)


async def rollback(call: Call) -> web.StreamResponse:
    """`POST /v1/pools/{id}/rollback`. A body is not looked at."""
    return await call.answer_kept(await call.service.roll_back(call.ident), 202)


async def rollout(call: Call) -> web.StreamResponse:
    """`GET /v1/pools/{id}/rollout`."""
    return call.answer(call.service.rollout(call.ident))


async def promote(call: Call) -> web.StreamResponse:
    """`POST /v1/pools/{id}/rollout/promote`. A body is not looked at."""
    return await call.answer_kept(call.service.promote(call.ident), 202)


async def abort(call: Call) -> web.StreamResponse:
    """`POST /v1/pools/{id}/rollout/abort`. A body is not looked at."""
    return await call.answer_kept(call.service.abort_rollout(call.ident), 202)


async def share(call: Call) -> web.StreamResponse:
    """`POST /v1/pools/{id}/rollout/share`."""
    request = await _read(call, _SHARE)
    if isinstance(request, Refused):
        return call.refuse(request)
    return await call.answer_kept(call.service.share_canary(call.ident, request.percent), 202)


async def reload_config(call: Call) -> web.StreamResponse:
    """`POST /v1/config/reload`."""
    request = await _read(call, _CONFIG)
    if isinstance(request, Refused):
        return call.refuse(request)
    dry_run, revert = request.dry_run is True, request.revert is True
    return await call.answer_kept(await call.service.reload_config(dry_run=dry_run, revert=revert))


async def outlook(call: Call) -> web.StreamResponse:
    """`POST /v1/plan`."""
    request = await _read(call, _OUTLOOK)
    if isinstance(request, Refused):
        return call.refuse(request)
    return call.answer(await call.service.outlook(request))


async def _read(call: Call, shape: Body[T]) -> T | Refused:
    body = await call.read_body()
    return body if isinstance(body, Refused) else shape.parse(body)
