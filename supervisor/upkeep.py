"""What a running daemon does every few seconds: turn logs over, tell systemd, look at its control socket and the clock.

The watchdog is pinged on the event loop itself: a loop that is blocked is silent, and systemd ends the daemon.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from supervisor.core.state import State
from supervisor.http.unix_socket import ListenError
from supervisor.runtime import systemd
from supervisor.runtime.engine_logs import rotate_if_needed
from supervisor.runtime.systemd import Notifier

log = logging.getLogger("orchctl")

LOG_BYTES_MAX = 16 * 1024 * 1024
LOG_FILES_KEEP = 3
LOG_LOOK_EVERY_S = 10.0
STATUS_EVERY_S = 5.0
CONTROL_LOOK_EVERY_S = 2.0
CLOCK_LOOK_EVERY_S = 1.0
CLOCK_JUMP_S = 1.0
"""Whoever keeps a clock right by slewing moves it less than this in a second."""

Work = Coroutine[Any, Any, None]


async def keep_logs(paths: Callable[[], Iterable[Path]], every_s: float = LOG_LOOK_EVERY_S) -> None:
    """Turn the engines' logs over before they are too large."""
    said: dict[Path, str] = {}
    while True:
        await asyncio.sleep(every_s)
        for path in tuple(paths()):
            cause = await asyncio.to_thread(_rotate, path)
            if cause is None:
                said.pop(path, None)
            elif said.get(path) != cause:
                said[path] = cause
                log.error("the log of an engine cannot be turned over", extra={"file": path.name, "cause": cause})


def _rotate(path: Path) -> str | None:
    """Why it cannot be turned over; None where all is well."""
    try:
        rotate_if_needed(path, bytes_max=LOG_BYTES_MAX, files_keep=LOG_FILES_KEEP)
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


async def keep_status(notifier: Notifier, state: Callable[[], State], settle: Callable[[], None]) -> None:
    """Tell systemd in one line how things stand."""
    while True:
        replicas = state().replicas.values()
        ready = sum(replica.is_serving for replica in replicas)
        text = f"{ready}/{len(replicas)} pools ready, {len(state().runs)} tasks running"
        notifier.send(systemd.status(text))
        settle()
        await asyncio.sleep(STATUS_EVERY_S)


async def keep_watchdog(notifier: Notifier, every_s: float) -> None:
    """Show systemd that the event loop turns."""
    while True:
        notifier.send(systemd.WATCHDOG)
        await asyncio.sleep(every_s)


async def keep_clock(every_s: float = CLOCK_LOOK_EVERY_S) -> None:
    """Say where the wall clock was set: times of the log do not compare over it. No deadline or limit goes by it."""
    apart_s = _wall_ahead_s()
    while True:
        await asyncio.sleep(every_s)
        now_apart_s = _wall_ahead_s()
        if abs(now_apart_s - apart_s) >= CLOCK_JUMP_S:
            log.warning("the wall clock jumped", extra={"by_s": round(now_apart_s - apart_s, 3)})
        apart_s = now_apart_s


def _wall_ahead_s() -> float:
    """How far the wall clock is ahead of the time since boot, which goes on while a host is suspended."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


async def keep_control(look: Callable[[], Awaitable[bool]], every_s: float = CONTROL_LOOK_EVERY_S) -> None:
    """See that whoever opens the control socket's path finds this daemon; say so once where that cannot be had."""
    said: str | None = None
    while True:
        cause: str | None = None
        try:
            if await look():
                log.warning("the control socket was gone and is made anew")
        except ListenError as error:
            cause = str(error)
        if cause is not None and cause != said:
            log.error("the control socket cannot be made anew", extra={"cause": cause})
        said = cause
        await asyncio.sleep(every_s)
