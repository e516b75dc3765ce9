"""One running daemon: builds the parts, wires them, starts and stops them in order. No decisions.

Start: lock and read the journal, end orphans of a daemon that died, listen, tell systemd, look at the devices; the
workers follow from what is seen there. Stop: the core halts (drain, stop every worker, all ends on disk), then the
listeners, the journal and the log close; no process, port or socket is left behind.
"""

import asyncio
import hashlib
import logging
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from supervisor.config.keys import KeysError
from supervisor.config.load import Loaded
from supervisor.config.places import Places
from supervisor.core.conductor import Conductor
from supervisor.core.effects import Effect
from supervisor.core.events import Event, FirstTokenCame, HaltRequested
from supervisor.http.auth import Gate
from supervisor.http.limits import Limits
from supervisor.http.server import HttpServer
from supervisor.http.tls import Tls, TlsError
from supervisor.http.unix_socket import ListenError
from supervisor.runtime import blueprint, orphans, restoring, systemd, worker_records
from supervisor.runtime.answers import Answers
from supervisor.runtime.audit import Audit
from supervisor.runtime.chronicle import Chronicle
from supervisor.runtime.device_watch import DeviceWatch
from supervisor.runtime.engine_logs import rotate_if_needed
from supervisor.runtime.followed_files import FollowedFiles, Source
from supervisor.runtime.gauges import Gauges
from supervisor.runtime.gpus import GpuSource
from supervisor.runtime.intent_file import IntentFile
from supervisor.runtime.journal.journal import Journal
from supervisor.runtime.journal.records import Damage, Restored
from supervisor.runtime.journaling import Journaling
from supervisor.runtime.key_ring import KeyRing
from supervisor.runtime.loop import CoreLoop
from supervisor.runtime.metrics import Metrics
from supervisor.runtime.model_shapes import ModelShapes
from supervisor.runtime.outputs import OutputShelf
from supervisor.runtime.perform import Parts, Performer
from supervisor.runtime.policy_desk import PolicyDesk
from supervisor.runtime.processes import Processes
from supervisor.runtime.progress import ProgressTable
from supervisor.runtime.runs import Runs
from supervisor.runtime.service import DaemonService
from supervisor.runtime.stream_logs import StreamLogs
from supervisor.runtime.systemd import Notifier
from supervisor.runtime.views import HostFacts
from supervisor.runtime.worker_hands import WorkerHands

log = logging.getLogger("orchctl")

ORPHAN_GRACE_S = 5.0
LOG_BYTES_MAX = 16 * 1024 * 1024
LOG_FILES_KEEP = 3
LOG_LOOK_EVERY_S = 10.0
STATUS_EVERY_S = 5.0
EXIT_OK = 0
EXIT_BUG = 70


class DaemonOrder(Struct, frozen=True):
    """What one daemon is started with."""

    loaded: Loaded
    places: Places
    gpus: GpuSource
    simulated: str | None
    version: str
    watchdog_s: float | None
    keys: KeyRing
    tls: Tls | None


class Daemon:
    """Owns every part."""

    def __init__(self, order: DaemonOrder, journal: Journal, restored: Restored, notifier: Notifier) -> None:
        self._order = order
        self._loop = asyncio.get_running_loop()
        self._journal = journal
        self._restored = restored
        self._notifier = notifier
        self._done = asyncio.Event()
        self._exit_code = EXIT_OK
        self._tasks: set[asyncio.Task[None]] = set()
        self._build()

    def _build(self) -> None:
        config = self._order.loaded.config
        blueprints = blueprint.draw_pools(config, self._order.loaded.source, ModelShapes().kv_bytes_per_token)
        self._policy = PolicyDesk(config.policy, self._loop.time)
        plans = tuple(each.plan for each in blueprints.values())
        conductor = Conductor(plans, blueprint.draw_host(config), self._policy.policy)
        self._core = CoreLoop(conductor, self._perform, self._note_bug, self._loop)
        self._answers = Answers(self._loop)
        slots = sum(each.plan.slots for each in blueprints.values())
        socket = self._order.places.socket
        self._progress = ProgressTable.open(socket.with_name(f"{socket.name}.progress"), slots)
        self._logs = StreamLogs(self._core.post, self._progress)
        self._processes = Processes(instance=_instance(self._order.places), environ=os.environ)
        self._hands = WorkerHands(
            blueprints,
            self._core.post,
            self._processes,
            lambda pool_id: len(self._core.state.replicas[pool_id].runs),
            self._order.gpus,
            state_dir=self._order.places.state_dir,
            log_dir=self._order.places.log_dir,
            is_simulated=self._order.simulated is not None,
        )
        outputs = OutputShelf()
        runs = Runs(blueprints, self._logs, self._hands.engine_of, self._post_fact, outputs)
        self._metrics = Metrics(lambda: self._core.state, runs.meters)
        self._metrics.registry.register(self._policy)
        self._gauges = Gauges(self._metrics, runs.meters)
        self._journaling = Journaling(
            self._journal, self._logs, self._core.post, self._core.now_ms, outputs, self._note_damage
        )
        self._chronicle = Chronicle(lambda: self._core.state, self._core.now_ms)
        self._intents = IntentFile(self._order.places.state_dir, self._core.now_ms)
        self._performer = Performer(
            Parts(
                answers=self._answers,
                journaling=self._journaling,
                runs=runs,
                hands=self._hands,
                logs=self._logs,
                metrics=self._metrics,
                chronicle=self._chronicle,
                intents=self._intents,
                on_halted=self._done.set,
            )
        )
        self._devices = DeviceWatch(self._order.gpus, self._core.post, self._gauges)
        self._files = FollowedFiles(_sources(self._order))
        self._http = self._draw_edge()

    def _draw_service(self) -> DaemonService:
        facts = HostFacts(
            self._order.version,
            self._order.simulated,
            self._core.now_ms(),
            self._policy.status,
            str(self._order.keys.path),
            lambda: self._files.causes,
        )
        return DaemonService(
            self._core, self._answers, self._journaling, self._logs, self._gauges, facts, self._hands.log_path
        )

    def _draw_edge(self) -> HttpServer:
        config = self._order.loaded.config
        return HttpServer(
            self._draw_service(),
            host=config.listen.host,
            port=config.listen.port,
            socket_path=self._order.places.socket,
            limits=Limits(write_stall_s=config.stream.write_stall_ms / 1000),
            simulated=self._order.simulated,
            gate=Gate(self._order.keys, Audit(self._metrics.note_auth_failure)),
            tls=self._order.tls,
        )

    def _perform(self, effect: Effect) -> None:
        self._performer.perform(effect)

    def _post_fact(self, event: Event) -> None:
        """The relay's facts; the metrics see a first token before the core does."""
        if isinstance(event, FirstTokenCame):
            self._metrics.note_first_token(event, self._core.now_ms())
        self._core.post(event)

    def _note_bug(self, _: BaseException) -> None:
        self._exit_code = EXIT_BUG
        self._done.set()

    async def run(self) -> int:
        """Serve until a signal or a bug ends it; gives the exit code. Raises ListenError."""
        self._journal.start(self._loop, self._journaling.on_report)
        await self._end_orphans()
        self._restore()
        try:
            await self._http.start()
        except ListenError:
            await self._close()
            raise
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._note_signal)
        self._loop.add_signal_handler(signal.SIGHUP, self._note_hangup)
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
        keeping = (self._keep_logs(), self._keep_status(), self._files.run())
        for work in (self._gauges.run(), self._devices.run(), *keeping):
            self._start(work)
        if self._order.watchdog_s is not None:
            self._start(self._keep_watchdog(self._order.watchdog_s))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._note_task_done)

    def _note_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (bug := task.exception()):
            log.critical("a task of the daemon broke", exc_info=bug)
            self._note_bug(bug)

    async def _end_orphans(self) -> None:
        """Engines of a daemon that died: proved to be its own, they are ended, so that no GPU is taken twice."""
        found = await asyncio.to_thread(worker_records.read_all, self._order.places.state_dir)
        for record in found.records:
            end = await orphans.end_orphan(record, ORPHAN_GRACE_S)
            log.warning(
                "an engine outlived its daemon", extra={"pool_id": record.pool_id, "pid": record.pid, "end": end}
            )
            worker_records.remove(self._order.places.state_dir, record.pool_id, record.incarnation)
        worker_records.discard(self._order.places.state_dir, found.unreadable)
        if stuck := await self._processes.end_leftovers():
            log.error("engines of an earlier daemon would not end", extra={"pids": list(stuck)})

    def _restore(self) -> None:
        """Take up the tasks of an earlier daemon."""
        if damage := self._restored.damage:
            self._note_damage(damage)
        if (wishes := self._intents.read()) is not None:
            self._core.post(wishes)
        event = restoring.take_up(self._restored, self._progress, self._logs, self._core.now_ms())
        if event.unfinished or event.finished:
            counts = {"unfinished": len(event.unfinished), "finished": len(event.finished)}
            log.info("tasks restored", extra=counts)
        self._core.post(event)
        self._metrics.note_restored(event.unfinished)
        self._restored = Restored(unfinished=[], finished=[], damage=None)

    def _note_damage(self, damage: Damage) -> None:
        self._metrics.note_damage()
        log.error("the journal was damaged", extra=structs.asdict(damage))

    def _note_signal(self) -> None:
        """The first one drains, the second one stops at once."""
        is_first = self._core.state.halt_deadline_ms is None
        drain_ms = self._order.loaded.config.shutdown.drain_ms if is_first else 0
        log.info("daemon stops", extra={"drain_ms": drain_ms})
        self._notifier.send(systemd.STOPPING)
        self._core.post(HaltRequested(drain_ms))

    def _note_hangup(self) -> None:
        """Read again what an operator may have changed."""
        log.info("files are read again", extra={"signal": "SIGHUP"})
        self._start(self._files.look(is_forced=True))

    async def _keep_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_LOOK_EVERY_S)
            for path in [self._hands.log_path(pool_id) for pool_id in self._core.state.replicas]:
                await asyncio.to_thread(self._rotate, path)

    @staticmethod
    def _rotate(path: Path) -> None:
        rotate_if_needed(path, bytes_max=LOG_BYTES_MAX, files_keep=LOG_FILES_KEEP)

    async def _keep_status(self) -> None:
        while True:
            replicas = self._core.state.replicas.values()
            ready = sum(replica.is_serving for replica in replicas)
            text = f"{ready}/{len(replicas)} pools ready, {len(self._core.state.runs)} tasks running"
            self._notifier.send(systemd.status(text))
            self._chronicle.settle()
            await asyncio.sleep(STATUS_EVERY_S)

    async def _keep_watchdog(self, every_s: float) -> None:
        while True:
            self._notifier.send(systemd.WATCHDOG)
            await asyncio.sleep(every_s)

    async def _close(self) -> None:
        """Let go of everything, in the reverse order."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._http.close()
        self._core.close()
        await self._hands.close()
        await self._intents.close()
        await self._processes.close()
        await self._devices.close()
        self._policy.close()
        unwritten = await asyncio.to_thread(self._journal.close)
        self._progress.close()
        log.info("daemon stopped", extra={"exit_code": self._exit_code, "unwritten_records": unwritten})


def _sources(order: DaemonOrder) -> list[Source]:
    """The files that are followed while the daemon runs."""
    sources = [Source("API keys", (order.keys.path,), order.keys.take_up, (KeysError,))]
    if (tls := order.tls) is not None:
        sources.append(Source("TLS certificate", (tls.cert_file, tls.key_file), tls.take_up, (TlsError,)))
    return sources


def _instance(places: Places) -> str:
    """What marks the engines of this daemon, and of whoever runs in its place after a crash."""
    return hashlib.sha256(str(places.state_dir).encode()).hexdigest()[:16]


def ensure_log_dir(path: Path) -> None:
    """Engines write here; only this user may read what they print."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
