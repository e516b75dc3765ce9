"""Callers of the Python client that come at their own pace, whatever became of those before."""

import asyncio
import time
from dataclasses import dataclass, field

from supervisor.client import ClientError, OrchClient, RetryPolicy, new_completion
from tests.support.daemon import Daemon

PER_S = 20.0
TOKENS = 8


@dataclass
class Seen:
    """What the callers saw."""

    ended: int = 0
    failed: list[str] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)


async def call(client: OrchClient, seen: Seen) -> None:
    """One task, to its end."""
    began_s = time.monotonic()
    try:
        answer = await client.complete(new_completion("say something", model_ref="tiny", ctx=512, max_tokens=TOKENS))
    except ClientError as error:
        seen.failed.append(f"{type(error).__name__}: {error}")
        return
    if answer.end.tokens_out != TOKENS:
        seen.failed.append(f"{answer.end.tokens_out} tokens instead of {TOKENS}")
    seen.ended += 1
    seen.took_s.append(time.monotonic() - began_s)


async def keep_calling(daemon: Daemon, over: asyncio.Event, retry: RetryPolicy, seen: Seen) -> None:
    """Open loop: one more caller each 50 ms until it is over; each is waited for."""
    callers = set[asyncio.Task[None]]()
    async with OrchClient(f"http://127.0.0.1:{daemon.port}", retry=retry) as client:
        while not over.is_set():
            callers.add(asyncio.create_task(call(client, seen)))
            await asyncio.sleep(1 / PER_S)
        await asyncio.gather(*callers)
