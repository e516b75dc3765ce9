"""Handlers of the control plane: drain, resume, logs, status. They parse, ask the service and translate."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from aiohttp import web

from supervisor.core.refusals import Refused
from supervisor.http.bodies import Body
from supervisor.http.call import Call, bool_query, int_query
from supervisor.wire.pools import DrainRequest

LOG_LINES_DEFAULT = 100
LOG_TYPE = "text/plain; charset=utf-8"

_DRAIN = Body(DrainRequest)


async def drain(call: Call) -> web.StreamResponse:
    """`POST /v1/pools/{id}/drain`."""
    body = await call.read_body()
    request = body if isinstance(body, Refused) else _DRAIN.parse(body)
    if isinstance(request, Refused):
        return call.refuse(request)
    return await call.answer_kept(call.service.drain(call.ident, request.deadline_ms), 202)


async def resume(call: Call) -> web.StreamResponse:
    """`POST /v1/pools/{id}/resume`. A body is not looked at."""
    return await call.answer_kept(call.service.resume(call.ident), 202)


async def plan(call: Call) -> web.StreamResponse:
    """`GET /v1/plan`."""
    return call.reply(call.service.plan())


async def status(call: Call) -> web.StreamResponse:
    """`GET /v1/status`."""
    return call.reply(call.service.status())


async def logs(call: Call) -> web.StreamResponse:
    """`GET /v1/pools/{id}/logs?lines=N&follow=true`: the engine's own output, as it is."""
    lines = int_query(call, "lines", LOG_LINES_DEFAULT, 0, call.edge.limits.log_lines_max)
    follow = bool_query(call, "follow")
    if isinstance(lines, Refused):
        return call.refuse(lines)
    if isinstance(follow, Refused):
        return call.refuse(follow)
    pieces = call.service.pool_log(call.ident, lines=lines, follow=follow)
    if isinstance(pieces, Refused):
        return call.refuse(pieces)
    headers = {**call.headers, "Content-Type": LOG_TYPE, "Cache-Control": "no-store"}
    response = web.StreamResponse(headers=headers)
    await response.prepare(call.request)
    follower = LogFollower(pieces)
    with call.long_answer(follower, on_lost=follower.end):
        await follower.run(response)
    await response.write_eof()
    return response


class LogFollower:
    """Copies pieces of a log into a response until there are none, the client leaves or the daemon stops."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._over = asyncio.Event()

    def end(self) -> None:
        """Stop, also in the middle of waiting for the next piece."""
        self._over.set()

    async def run(self, response: web.StreamResponse) -> None:
        """Raises ConnectionError where the client left in the middle of a write."""
        over: asyncio.Future[Any] = asyncio.ensure_future(self._over.wait())
        try:
            while (piece := await self._next_before(over)) is not None:
                await response.write(piece)
        finally:
            over.cancel()
            if isinstance(self._pieces, AsyncGenerator):
                await self._pieces.aclose()

    async def _next_before(self, over: asyncio.Future[Any]) -> bytes | None:
        step = asyncio.ensure_future(anext(self._pieces, None))
        try:
            await asyncio.wait((step, over), return_when=asyncio.FIRST_COMPLETED)
            return step.result() if step.done() else None
        finally:
            if not step.done():
                step.cancel()
                await asyncio.wait((step,))
