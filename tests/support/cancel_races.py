"""Many callers who cancel at about the moment at which their task ends, and what each of them saw."""

import asyncio
import random
from collections import Counter

import aiohttp

from tests.support.daemon import a_request
from tests.support.streams import Stream, parse_events

REPLY_WITHIN_S = 120.0


class Aim:
    """When to cancel: the reach of the moments that are drawn grows while cancels win, and shrinks while they lose.

    So about half of them win, however fast the machine is.
    """

    STEP = 1.02

    def __init__(self, first_ms: float) -> None:
        self.reach_ms = first_ms

    def note(self, end: str) -> None:
        """How a race ended."""
        self.reach_ms = min(max(self.reach_ms * (self.STEP if end == "canceled" else 1 / self.STEP), 0.1), 10_000.0)


async def run_races(port: int, count: int, at_once: int, seed: int, first_ms: float) -> Counter[str]:
    """Run races, `at_once` of them at any time. Gives how they ended; AssertionError for a broken promise."""
    dice, gate, ends, aim = random.Random(seed), asyncio.Semaphore(at_once), Counter[str](), Aim(first_ms)
    plans = [(dice.randint(1, 8), dice.uniform(0, 1), number) for number in range(count)]
    timeout = aiohttp.ClientTimeout(total=REPLY_WITHIN_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector, timeout=timeout) as session:

        async def one(tokens: int, share: float, number: int) -> None:
            async with gate:
                end = await _race(session, tokens, share * aim.reach_ms, number)
                ends[end] += 1
                aim.note(end)

        async with asyncio.TaskGroup() as group:
            for plan in plans:
                group.create_task(one(*plan))
    return ends


async def _race(session: aiohttp.ClientSession, tokens: int, after_ms: float, number: int) -> str:
    """One task, read from its start and cancelled on the way; gives its end."""
    body = a_request(max_tokens=tokens, prompt=f"#{number + 1} a race", determinism="best_effort")
    async with session.post("/v1/tasks", json=body) as reply:
        assert reply.status == 202, await reply.text()
    path = f"/v1/tasks/{body['task_id']}"
    reading = asyncio.create_task(_read(session, f"{path}/stream"))
    await asyncio.sleep(after_ms / 1_000)  # the point of the race: at any moment, and not after any event
    async with session.post(f"{path}/cancel") as reply:
        assert reply.status == 204, await reply.text()
        told = int(reply.headers["X-Tokens-Emitted"])
    stream = (await reading).check()
    shown = stream.names.count("token")
    assert shown <= told, f"{told} tokens were told at the cancel, {shown} are in the stream"
    assert stream.end.name == "end", stream.end
    again = (await _read(session, f"{path}/stream")).check()
    assert again.names == stream.names, "the stream changed after its end"
    return str(stream.end.data["finish_reason"])


async def _read(session: aiohttp.ClientSession, path: str) -> Stream:
    async with session.get(path) as reply:
        assert reply.status == 200, await reply.text()
        return Stream(list(parse_events((await reply.read()).splitlines(keepends=True))))
