"""Tries that fail, one after the other: waits between them, or gives up with the last error.

Decides nothing itself: `backoff` does. Clock, sleep and chance come from outside: a test waits for nothing.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from supervisor.client.backoff import Failure, RetryPolicy, wait_before_retry_s
from supervisor.client.errors import ClientError

LAST_TRY_S = 1.0
"""A try that begins at the very end of the total still has this long."""

OnRetry = Callable[[ClientError, float], object]
"""Told of every error that a new try is made after, and of the seconds until then."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What time and chance are. `now_s` never goes back; `chance` is from 0 to less than 1."""

    now_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep)
    chance: Callable[[], float] = random.random


class Patience:
    """The tries of one request. `restart` after each sign of progress: then every bound counts from there."""

    def __init__(self, policy: RetryPolicy, pace: Pace, on_retry: OnRetry) -> None:
        self._policy = policy
        self._pace = pace
        self._on_retry = on_retry
        self._tries = 0
        self._since_s = pace.now_s()

    def restart(self) -> None:
        """What is asked for moves on."""
        self._tries = 0
        self._since_s = self._pace.now_s()

    def left_s(self) -> float:
        """How long the try that begins now may take."""
        return max(LAST_TRY_S, self._policy.total_s - (self._pace.now_s() - self._since_s))

    async def wait(self, error: ClientError) -> None:
        """Wait for the next try. Raises the error where there is none."""
        self._tries += 1
        failure = Failure(error, self._tries, self._pace.now_s() - self._since_s)
        wait_s = wait_before_retry_s(self._policy, failure, self._pace.chance())
        if wait_s is None:
            raise error
        self._on_retry(error, wait_s)
        await self._pace.sleep(wait_s)
