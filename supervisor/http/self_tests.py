"""The handler of a self-test on demand. Asks the service and translates."""

from aiohttp import web

from supervisor.http.call import Call


async def run(call: Call) -> web.StreamResponse:
    """`POST /v1/pools/{id}/selftest`. A body is not looked at."""
    return call.answer(await call.service.self_test(call.ident))
