"""Engine processes: started, watched to their end, stopped, and nothing of them left behind.

The end of a process is learned from its pidfd, in the event loop. Its exit status is read but it is not waited for
until what it left behind is swept away: so long its pid, which also names its process group, belongs to nobody else.
What an exit means, and whether there is another start, is not decided here.
"""

import asyncio
import contextlib
import logging
import os
import re
import secrets
import signal
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from supervisor.runtime.cgroups import CgroupError, Cgroups
from supervisor.runtime.processes_adopt import Adopted, read_exit, reap, take_hold
from supervisor.runtime.processes_env import SpawnError, SpawnOrder, SpawnTrouble, engine_environ
from supervisor.runtime.processes_launch import Launched, launch
from supervisor.runtime.processes_sweep import Recognise, found_now, of_engine, of_instance, of_mark, sweep
from supervisor.runtime.side_thread import NoThreadError, call_aside

log = logging.getLogger(__name__)

_INSTANCE = re.compile(r"[A-Za-z0-9_-]{1,64}")

OnExit = Callable[[int, int | None], None]
"""Called once on the event loop with pid and return code, as soon as the process has ended.

A negative code is the signal; None: only its parent could have known, and that was a daemon that died.
"""

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
    """The end of an engine. `returncode` is None where it is unknown, or where not even SIGKILL ended it in time.

    `leftovers` are pids of its own or of its children that are still there.
    """

    returncode: int | None
    leftovers: tuple[int, ...]


class EngineProcess:
    """One engine process, from its start until nothing is left of it."""

    def __init__(self, launched: Launched | Adopted, *, mark: str, on_exit: OnExit, bounds: ProcessBounds) -> None:
        self._launched = launched
        self._on_exit = on_exit
        self._bounds = bounds
        self._loop = asyncio.get_running_loop()
        self._exited = asyncio.Event()
        self._sweeping: asyncio.Task[tuple[int, ...]] | None = None
        self.pid = launched.pid
        self.start_ticks = launched.start_ticks
        self.mark = mark
        self.returncode: int | None = None
        self.oom_kills: int | None = None
        """Processes in its control group that the kernel killed for want of memory; once it has ended, where known."""
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
        """To the whole group, which keeps its name until `_sweep` has waited for the leader.

        The group of somebody else's child may get another owner at any moment: that one is told alone, by its pidfd.
        """
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._launched.is_child:
                os.killpg(self.pid, number)
            else:
                signal.pidfd_send_signal(self._launched.pidfd, number)

    def _note_exit(self) -> None:
        end = read_exit(self._launched.pidfd)
        if end is None:
            return
        self._loop.remove_reader(self._launched.pidfd)
        self.returncode = end.returncode
        if self._launched.group is not None:  # read before the sweep takes the group away
            self.oom_kills = self._launched.group.oom_kills()
        self._exited.set()
        self._sweeping = self._loop.create_task(self._sweep(), name=f"sweep {self.pid}")
        self._on_exit(self.pid, self.returncode)

    async def _sweep(self) -> tuple[int, ...]:
        try:
            is_ours = of_engine(self.pid, self.mark) if self._launched.is_child else of_mark(self.mark)
            try:
                clearing = call_aside(lambda: self._clear(is_ours), name="sweep")
            except NoThreadError:  # an orphan is worse than a loop that waits for a moment
                return self._clear(is_ours)
            return await clearing
        finally:
            reap(self._launched.pidfd)
            os.close(self._launched.pidfd)
            if isinstance(self._launched, Launched):
                self._launched.popen.returncode = self.returncode  # waited for here and not by Popen

    def _clear(self, is_ours: Recognise) -> tuple[int, ...]:
        """Blocks: the group at once, then whatever else is recognised; the folders go last."""
        group = self._launched.group
        if group is not None:
            group.kill()
        left: tuple[int, ...] = ()
        try:
            left = sweep(is_ours, deadline_s=self._bounds.sweep_s)
        except OSError as error:
            self._signal(signal.SIGKILL)  # its process group can be told without a look
            log.error("what an engine left cannot be looked for", extra={"pid": self.pid, "cause": str(error)})  # noqa: TRY400
        if group is not None:
            group.remove()
        return left

    def pids(self) -> frozenset[int]:
        """Blocks: all processes of this engine that are found now, itself included."""
        is_child = self._launched.is_child
        return found_now(of_engine(self.pid, self.mark) if is_child else of_mark(self.mark)) | {self.pid}


class Processes:
    """All engine processes of this daemon. Use from one event loop."""

    def __init__(
        self,
        *,
        instance: str,
        environ: Mapping[str, str],
        bounds: ProcessBounds | None = None,
        groups: Cgroups | None = None,
    ) -> None:
        """`instance` names this daemon and whoever runs in its place after a crash; `environ` is the daemon's own.

        `groups` makes the control groups of engines; without it they have none.

        Raises:
            ValueError: `instance` is not 1 to 64 letters, digits, `_` or `-`.
        """
        if not _INSTANCE.fullmatch(instance):
            raise ValueError(f"not a name of an instance: {instance!r}")
        self._instance = instance
        self._environ = dict(environ)
        self._bounds = bounds or ProcessBounds()
        self.groups = groups or Cgroups(instance)
        self._engines: list[EngineProcess] = []

    async def spawn(self, order: SpawnOrder, on_exit: OnExit) -> EngineProcess:
        """Start an engine; `on_exit` is not called before this has returned.

        Raises:
            SpawnError: it was not started, or not within `spawn_s`; nothing is left of it.
        """
        mark = f"{self._instance}.{secrets.token_hex(8)}"
        env = engine_environ(order, daemon=self._environ, mark=mark)
        try:
            starting = call_aside(lambda: self._launch(order, env, mark), name="spawn")
        except NoThreadError as error:
            raise SpawnError(SpawnTrouble.LIMIT, f"the engine was not started: {error}") from error
        try:
            await asyncio.wait({starting}, timeout=self._bounds.spawn_s)
        except asyncio.CancelledError:
            starting.add_done_callback(_end_late)
            raise
        if not starting.done():
            starting.add_done_callback(_end_late)
            raise SpawnError(SpawnTrouble.DEADLINE, f"the engine did not start within {self._bounds.spawn_s:g} s")
        return self._know(EngineProcess(starting.result(), mark=mark, on_exit=on_exit, bounds=self._bounds))

    def _launch(self, order: SpawnOrder, env: Mapping[str, str], mark: str) -> Launched:
        """Blocks, and its thread is not used again. Nothing is left where it fails."""
        try:
            group = self.groups.make(mark, order.group)
        except CgroupError as error:
            raise SpawnError(SpawnTrouble.LIMIT, str(error)) from error
        try:
            return launch(order, env, run=f"{order.name} {mark}", group=group)
        except SpawnError:
            if group is not None:
                group.remove()
            raise

    def adopt(self, pid: int, start_ticks: int, mark: str, on_exit: OnExit) -> EngineProcess:
        """Take over a running engine that an earlier daemon started; it is watched, stopped and swept as any other.

        Raises:
            SpawnError: it has ended.
        """
        held = take_hold(pid, start_ticks, self.groups.find(mark))
        if held is None:
            raise SpawnError(SpawnTrouble.OTHER, "the engine that was found running has ended")
        return self._know(EngineProcess(held, mark=mark, on_exit=on_exit, bounds=self._bounds))

    def _know(self, engine: EngineProcess) -> EngineProcess:
        self._engines = [*(known for known in self._engines if not known.is_gone), engine]
        return engine

    def clear_group(self, mark: str) -> None:
        """End whoever is left in the control group of a worker of an earlier daemon, and remove it. Blocks."""
        group = self.groups.find(mark)
        if group is not None:
            group.kill()
            group.remove()

    async def end_leftovers(self, *, spared: Collection[str] = ()) -> tuple[int, ...]:
        """Kill the engines that an earlier daemon of this instance left, with all they started; pids that would not go.

        Those that carry one of the `spared` marks stay. Only before the first spawn: it knows no difference between
        theirs and ours.
        """
        return await call_aside(lambda: self._end_leftovers(spared), name="sweep")

    def _end_leftovers(self, spared: Collection[str]) -> tuple[int, ...]:
        groups = self.groups.leftovers(spared=spared)
        for group in groups:
            group.kill()
        left = sweep(of_instance(self._instance, spared=spared), deadline_s=self._bounds.sweep_s)
        for group in groups:
            group.remove()
        return left

    async def close(self) -> None:
        """Kill whatever still runs and wait, within bounds, until it is gone."""
        await asyncio.gather(*(engine.stop() for engine in self._engines))
        self.groups.close()


def _end_late(starting: asyncio.Future[Launched]) -> None:
    """Nobody waits for this start any more: kill what it brought, if anything, and wait for it out of the way."""
    if starting.cancelled() or starting.exception() is not None:
        return
    launched = starting.result()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(launched.popen.pid, signal.SIGKILL)
    os.close(launched.pidfd)
    call_aside(lambda: _bury(launched), name="end late start")


def _bury(launched: Launched) -> None:
    launched.popen.wait()
    if launched.group is not None:
        launched.group.kill()
        launched.group.remove()
