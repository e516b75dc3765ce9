"""Engine processes: started, watched to their end, stopped, and nothing of them left behind.

The end of a process is learned from its pidfd, in the event loop. Its exit status is read but it is not waited for
until what it left behind is swept away: so long its pid, which also names its process group, belongs to nobody else.
What an exit means, and whether there is another start, is not decided here.
"""

import asyncio
import contextlib
import os
import re
import secrets
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from supervisor.runtime.processes_env import SpawnError, SpawnOrder, SpawnTrouble, engine_environ
from supervisor.runtime.processes_launch import Launched, launch
from supervisor.runtime.processes_sweep import of_engine, of_instance, sweep
from supervisor.runtime.side_thread import call_aside

_INSTANCE = re.compile(r"[A-Za-z0-9_-]{1,64}")

OnExit = Callable[[int, int], None]
"""Called once on the event loop with pid and return code (negative: the signal), as soon as the process has ended."""

StopSteps = tuple[tuple[int, float], ...]
"""Signals to the process group, with the seconds to wait after each; SIGKILL follows."""


@dataclass(frozen=True, slots=True)
class ProcessBounds:
    """How long anything may take, in seconds."""

    spawn_s: float = 10.0
    kill_s: float = 5.0
    sweep_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Stopped:
    """The end of an engine. `returncode` is None where not even SIGKILL ended it in time (it waits in the kernel).

    `leftovers` are pids of its own or of its children that are still there.
    """

    returncode: int | None
    leftovers: tuple[int, ...]


class EngineProcess:
    """One engine process, from its start until nothing is left of it."""

    def __init__(self, launched: Launched, *, mark: str, on_exit: OnExit, bounds: ProcessBounds) -> None:
        self._launched = launched
        self._on_exit = on_exit
        self._bounds = bounds
        self._loop = asyncio.get_running_loop()
        self._exited = asyncio.Event()
        self._sweeping: asyncio.Task[tuple[int, ...]] | None = None
        self.pid = launched.popen.pid
        self.start_ticks = launched.start_ticks
        self.mark = mark
        self.returncode: int | None = None
        self._loop.add_reader(launched.pidfd, self._note_exit)

    async def stop(self, steps: StopSteps = ()) -> Stopped:
        """End it: each signal in turn until it has gone, then SIGKILL, then whatever it left behind.

        May be called again while it runs: without steps that is the impatient way. After an exit of its own accord it
        only waits for the sweep that has begun by itself. Takes the steps' seconds + `kill_s` + `sweep_s` at most.
        """
        for number, wait_s in steps:
            if self._exited.is_set():
                break
            self._signal(number)
            await self._wait_exit(wait_s)
        if not self._exited.is_set():
            self._signal(signal.SIGKILL)
            await self._wait_exit(self._bounds.kill_s)
        if self._sweeping is None:
            return Stopped(None, (self.pid,))
        return Stopped(self.returncode, await asyncio.shield(self._sweeping))

    @property
    def is_gone(self) -> bool:
        """Whether it has ended and its children are dealt with."""
        return self._sweeping is not None and self._sweeping.done()

    async def _wait_exit(self, wait_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._exited.wait(), wait_s)

    def _signal(self, number: int) -> None:
        """To the whole group, which keeps its name until `_sweep` has waited for the leader."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _note_exit(self) -> None:
        status = os.waitid(os.P_PIDFD, self._launched.pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if status is None:
            return
        self._loop.remove_reader(self._launched.pidfd)
        self.returncode = status.si_status if status.si_code == os.CLD_EXITED else -status.si_status
        self._exited.set()
        self._sweeping = self._loop.create_task(self._sweep(), name=f"sweep {self.pid}")
        self._on_exit(self.pid, self.returncode)

    async def _sweep(self) -> tuple[int, ...]:
        try:
            is_ours = of_engine(self.pid, self.mark)
            return await call_aside(lambda: sweep(is_ours, deadline_s=self._bounds.sweep_s), name="sweep")
        finally:
            os.waitid(os.P_PIDFD, self._launched.pidfd, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222  (never blocks)
            os.close(self._launched.pidfd)
            self._launched.popen.returncode = self.returncode  # waited for here and not by Popen


class Processes:
    """All engine processes of this daemon. Use from one event loop."""

    def __init__(self, *, instance: str, environ: Mapping[str, str], bounds: ProcessBounds | None = None) -> None:
        """`instance` names this daemon and whoever runs in its place after a crash; `environ` is the daemon's own.

        Raises:
            ValueError: `instance` is not 1 to 64 letters, digits, `_` or `-`.
        """
        if not _INSTANCE.fullmatch(instance):
            raise ValueError(f"not a name of an instance: {instance!r}")
        self._instance = instance
        self._environ = dict(environ)
        self._bounds = bounds or ProcessBounds()
        self._engines: list[EngineProcess] = []

    async def spawn(self, order: SpawnOrder, on_exit: OnExit) -> EngineProcess:
        """Start an engine; `on_exit` is not called before this has returned.

        Raises:
            SpawnError: it was not started, or not within `spawn_s`; nothing is left of it.
        """
        mark = f"{self._instance}.{secrets.token_hex(8)}"
        env = engine_environ(order, daemon=self._environ, mark=mark)
        try:
            starting = call_aside(lambda: launch(order, env, run=f"{order.name} {mark}"), name="spawn")
        except RuntimeError as error:
            raise SpawnError(SpawnTrouble.LIMIT, f"the engine was not started: {error}") from error
        try:
            await asyncio.wait({starting}, timeout=self._bounds.spawn_s)
        except asyncio.CancelledError:
            starting.add_done_callback(_end_late)
            raise
        if not starting.done():
            starting.add_done_callback(_end_late)
            raise SpawnError(SpawnTrouble.DEADLINE, f"the engine did not start within {self._bounds.spawn_s:g} s")
        engine = EngineProcess(starting.result(), mark=mark, on_exit=on_exit, bounds=self._bounds)
        self._engines = [*(known for known in self._engines if not known.is_gone), engine]
        return engine

    async def end_leftovers(self) -> tuple[int, ...]:
        """Kill the engines that an earlier daemon of this instance left, with all they started; pids that would not go.

        Only before the first spawn: it knows no difference between theirs and ours.
        """
        is_ours = of_instance(self._instance)
        return await call_aside(lambda: sweep(is_ours, deadline_s=self._bounds.sweep_s), name="sweep")

    async def close(self) -> None:
        """Kill whatever still runs and wait, within bounds, until it is gone."""
        await asyncio.gather(*(engine.stop() for engine in self._engines))


def _end_late(starting: asyncio.Future[Launched]) -> None:
    """Nobody waits for this start any more: kill what it brought, if anything, and wait for it out of the way."""
    if starting.cancelled() or starting.exception() is not None:
        return
    launched = starting.result()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(launched.popen.pid, signal.SIGKILL)
    os.close(launched.pidfd)
    call_aside(launched.popen.wait, name="end late start")
