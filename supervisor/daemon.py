"""The life of one daemon: starts its parts in order, and stops them. No decisions.

Start: read the journal, prove the engines that outlived an earlier daemon, listen, tell systemd, look at the devices;
the workers follow from what is seen there. After an upgrade requests wait until the workers are Ready again, but
not the one for health.
Stop: the core halts (drain, stop every worker, all ends on disk), then the listeners, the journal and the log close; no
process, port or socket is left behind. An upgrade closes in the same order and leaves engines and listeners open.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec

from supervisor import upkeep
from supervisor.core import lifecycle
from supervisor.core.events import HaltRequested
from supervisor.core.lifecycle import Phase
from supervisor.daemon_parts import DaemonOrder, DaemonParts
from supervisor.http.unix_socket import ListenError
from supervisor.runtime import restoring, systemd
from supervisor.runtime.handover import Handover, note_config
from supervisor.runtime.journal.records import Restored
from supervisor.runtime.oom_shield import shield_daemon
from supervisor.runtime.residency_watch import ResidencyWatch
from supervisor.runtime.signals import MEANINGLESS, SignalReader

__all__ = ["Daemon", "DaemonOrder", "ensure_log_dir"]

log = logging.getLogger("orchctl")

READY_AFTER_HANDOVER_S = 5.0
HANDOVER_LOOK_S = 0.02


class Daemon(DaemonParts):
    """From its start to its end."""

    async def run(self) -> int:
        """Serve until a signal or a bug ends it; gives the exit code. Raises ListenError."""
        self._journal.start(self._loop, self._journaling.on_report)
        log.info("workers are confined", extra={"groups": self._processes.groups.summary, "shielded": shield_daemon()})
        self._restore()
        self._signals = SignalReader(self._loop, self._note_signal)
        if self._is_handed_over and self._order.watchdog_s is not None:
            self._start(upkeep.keep_watchdog(self._notifier, self._order.watchdog_s))
        watching = self._start(self._take_over_engines())
        try:
            await self._http.start(is_open=not self._is_handed_over)
        except ListenError:
            self._keeps_engines = True
            await self._close()
            raise
        if self._is_handed_over:
            await self._await_workers(watching)
            self._http.open_door()
        self._start_tasks()
        await self._done.wait()
        await self._close()
        return self._exit_code

    def _start_tasks(self) -> None:
        scheme = "http" if self._order.tls is None else "https"
        where = f"{scheme}://{self._order.loaded.config.listen.host}:{self._http.port}"
        facts = {"listen": where, "socket": str(self._order.places.socket)}
        log.info("daemon serves", extra={**facts, "pid": os.getpid(), "version": self._order.version})
        self._notifier.send(systemd.READY, systemd.status(f"serving on {where}"))
        residency = ResidencyWatch(self._serving, self._hands.look_at_residency, self._core.post)
        keeping = (residency.run(), self._files.run(), *self._keeping())
        for work in (self._gauges.run(), *keeping):
            self._start(work)

    def _keeping(self) -> Iterator[Coroutine[Any, Any, None]]:
        yield upkeep.keep_logs(lambda: [self._hands.log_path(pool_id) for pool_id in self._core.state.replicas])
        yield upkeep.keep_status(self._notifier, lambda: self._core.state, self._chronicle.settle)
        yield upkeep.keep_control(self._http.keep_control)
        yield upkeep.keep_clock()
        if self._order.watchdog_s is not None and not self._is_handed_over:
            yield upkeep.keep_watchdog(self._notifier, self._order.watchdog_s)

    def _serving(self) -> list[tuple[str, int]]:
        """The workers that serve, by pool and incarnation."""
        replicas = self._core.state.replicas.values()
        return [(each.pool_id, each.incarnation) for each in replicas if each.phase is Phase.READY]

    async def _await_workers(self, watching: asyncio.Task[None]) -> None:
        """After a handover requests wait at the door: a little longer, and they find the engines that they left."""
        until_s = self._loop.time() + READY_AFTER_HANDOVER_S
        while self._loop.time() < until_s and not (self._done.is_set() or watching.done()):
            workers = self._core.state.replicas.values()
            if workers and not any(each.phase in lifecycle.ON_THE_WAY for each in workers):
                return
            await asyncio.sleep(HANDOVER_LOOK_S)

    async def _take_over_engines(self) -> None:
        """Prove what outlived an earlier daemon, then look at the devices: nothing is started before that."""
        self._core.post(await self._found.look())
        await self._devices.run()

    def _restore(self) -> None:
        """Take up the tasks of an earlier daemon."""
        if damage := self._restored.damage:
            self._note_damage(damage)
        if (learned := self._needs.read()) is not None:
            self._core.post(learned)
        if self._wishes is not None:
            self._core.post(self._wishes)
            self._rollouts.resume_canaries(self._wishes.intent.pools)
        event = restoring.take_up(self._restored, self._progress, self._logs, self._core.now_ms())
        if event.unfinished or event.finished:
            counts = {"unfinished": len(event.unfinished), "finished": len(event.finished)}
            log.info("tasks restored", extra=counts)
        self._core.post(event)
        self._metrics.note_restored(event.unfinished)
        self._restored = Restored(unfinished=[], finished=[], damage=None)

    def _note_signal(self, number: int) -> None:
        """The first one drains, the second one stops at once."""
        if number in MEANINGLESS:
            log.info("a signal without a meaning was ignored", extra={"signal": signal.Signals(number).name})
            return
        if number == signal.SIGHUP:
            self._note_hangup()
            return
        is_first = self._core.state.halt_deadline_ms is None
        drain_ms = self._configuration.config.shutdown.drain_ms if is_first else 0
        log.info("daemon stops", extra={"drain_ms": drain_ms})
        self._notifier.send(systemd.STOPPING)
        self._core.post(HaltRequested(drain_ms))

    def _note_hangup(self) -> None:
        """Read again what an operator may have changed; the next image does so anyway."""
        if self._done.is_set():
            return
        log.info("files are read again", extra={"signal": "SIGHUP"})
        self._start(self._files.look(is_forced=True))
        self._start(self._config_desk.hang_up())

    async def _close(self) -> None:
        """Let go of everything, in the reverse order; of engines and sockets too, unless they are handed over."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._is_leaving:
            self._notifier.send(*systemd.reloading(time.monotonic_ns() // 1000), *systemd.extended())
            http, control, file = self._http.keep_listening()
            config = note_config(self._configuration.kept.text)
            self.handover = Handover(http, control, msgspec.json.encode(file), config)
        await self._http.close()
        self._core.close()
        await self._hands.close()
        self._hands.disconnect()
        await self._parity.close()
        await self._intents.close()
        await self._needs.close()
        await self._leases.close()
        await self._self_tests.close()
        if not self._keeps_engines:
            await self._found.close()
            await self._processes.close()
        await self._devices.close()
        self._policy.close()
        unwritten = await asyncio.to_thread(self._journal.close)
        if self._is_leaving:
            self._progress.forgive()
        self._progress.close()
        if self._signals is not None:
            self._signals.close()
        log.info("daemon stopped", extra={"exit_code": self._exit_code, "unwritten_records": unwritten})


def ensure_log_dir(path: Path) -> None:
    """Engines write here; only this user may read what they print."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
