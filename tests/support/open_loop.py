"""Callers who come at their own pace, whatever the daemon answers; those who are refused come back at their hint."""

import asyncio
import random
import time
from dataclasses import dataclass, field

import aiohttp

from tests.support.daemon import a_request

REPLY_WITHIN_S = 60.0


@dataclass
class Seen:
    """What the callers saw. Latencies are milliseconds of a submit, whatever the answer."""

    accepted: list[str] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    firsts: int = 0
    refused: int = 0
    retries: int = 0
    retries_accepted: int = 0
    strange: list[str] = field(default_factory=list)

    @property
    def honesty(self) -> float:
        """The share of retries at the hint that were let in."""
        return self.retries_accepted / max(self.retries, 1)

    def latency_ms(self, share: float) -> float:
        """A percentile of the submits."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


async def _submit(session: aiohttp.ClientSession, body: dict[str, object], seen: Seen) -> float | None:
    """One submit; gives the hint in seconds where it was refused."""
    began = time.monotonic()
    async with session.post("/v1/tasks", json=body) as reply:
        text = await reply.text()
        seen.latencies_ms.append((time.monotonic() - began) * 1_000)
        if reply.status == 202:
            seen.accepted.append(str(body["task_id"]))
            return None
        if reply.status != 429:
            seen.strange.append(f"{reply.status} {text}")
            return None
        seen.refused += 1
        return int(reply.headers["X-Backoff-Ms"]) / 1_000


async def _caller(session: aiohttp.ClientSession, body: dict[str, object], seen: Seen, until_s: float) -> None:
    seen.firsts += 1
    wait_s = await _submit(session, body, seen)
    while wait_s is not None and time.monotonic() + wait_s < until_s:
        await asyncio.sleep(wait_s)
        seen.retries += 1
        wait_s = await _submit(session, body, seen)
        seen.retries_accepted += wait_s is None


async def _come(port: int, rate_per_s: float, seconds: float, seed: int, fields: dict[str, object]) -> Seen:
    dice, seen = random.Random(seed), Seen()
    timeout = aiohttp.ClientTimeout(total=REPLY_WITHIN_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector, timeout=timeout) as session:
        began = time.monotonic()
        due_s = began
        async with asyncio.TaskGroup() as callers:
            while due_s < began + seconds:
                await asyncio.sleep(max(due_s - time.monotonic(), 0))
                body = a_request(prompt=f"#{seen.firsts + 1} hello", determinism="best_effort", **fields)
                callers.create_task(_caller(session, body, seen, began + 2 * seconds))
                due_s += dice.expovariate(rate_per_s)
    return seen


def open_loop(port: int, rate_per_s: float, seconds: float, *, seed: int = 1, **fields: object) -> Seen:
    """Let callers come for `seconds`, `rate_per_s` of them; their retries go on for as long again."""
    return asyncio.run(_come(port, rate_per_s, seconds, seed, fields))
