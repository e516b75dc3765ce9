"""The parts of one daemon, built and wired. Starts and stops nothing: see `daemon`. No decisions."""

import asyncio
import hashlib
import logging
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from supervisor.config.keys import KeysError
from supervisor.config.load import Loaded
from supervisor.config.places import Places
from supervisor.core import quiesce
from supervisor.core.conductor import Conductor
from supervisor.core.effects import Effect
from supervisor.core.events import EngineExited, Event, FirstTokenCame, StepPassed
from supervisor.http.auth import Gate
from supervisor.http.given_sockets import GivenSockets
from supervisor.http.limits import Limits
from supervisor.http.server import HttpServer
from supervisor.http.tls import Tls, TlsError
from supervisor.runtime import blueprint
from supervisor.runtime.answers import Answers
from supervisor.runtime.audit import Audit
from supervisor.runtime.blueprints import Blueprints
from supervisor.runtime.cgroups import open_cgroups
from supervisor.runtime.chronicle import Chronicle
from supervisor.runtime.config_desk import ConfigDesk
from supervisor.runtime.config_store import ConfigStore
from supervisor.runtime.configuration import ConfigReader, Configuration
from supervisor.runtime.device_watch import DeviceWatch
from supervisor.runtime.drafts import Drafts
from supervisor.runtime.engine_http import EngineHttp
from supervisor.runtime.exit_proof import OF_DEVICE
from supervisor.runtime.fault_notes import FaultNotes
from supervisor.runtime.first_plans import draw_first
from supervisor.runtime.followed_files import FollowedFiles, Source
from supervisor.runtime.found_engines import FoundEngines
from supervisor.runtime.fresh_ids import fresh_id
from supervisor.runtime.gauges import Gauges
from supervisor.runtime.gpu_holders import HeldWatch
from supervisor.runtime.gpus import GpuSource, Inventory
from supervisor.runtime.gpus_simulated import SimulatedGpus
from supervisor.runtime.handover import Handover
from supervisor.runtime.intent_file import IntentFile
from supervisor.runtime.journal.journal import Journal
from supervisor.runtime.journal.records import Damage, Restored
from supervisor.runtime.journaling import Journaling
from supervisor.runtime.json_log import JsonLog
from supervisor.runtime.kernel_log import KMSG, KernelLog
from supervisor.runtime.key_ring import KeyRing
from supervisor.runtime.lease_desk import LeaseDesk
from supervisor.runtime.lease_holders import LeaseHolders
from supervisor.runtime.loop import CoreLoop
from supervisor.runtime.metrics import Metrics
from supervisor.runtime.model_heads import ModelHeads
from supervisor.runtime.needs_file import NeedsFile
from supervisor.runtime.needs_reader import NeedsReader
from supervisor.runtime.outlook_desk import OutlookDesk
from supervisor.runtime.outputs import OutputShelf
from supervisor.runtime.parity import ParityProbe
from supervisor.runtime.perform import Parts, Performer
from supervisor.runtime.policy_desk import PolicyDesk
from supervisor.runtime.processes import Processes
from supervisor.runtime.progress import ProgressTable
from supervisor.runtime.rollout_desk import RolloutDesk
from supervisor.runtime.room import HostWatch
from supervisor.runtime.runs import Runs
from supervisor.runtime.self_test_desk import SelfTestDesk
from supervisor.runtime.service import DaemonService
from supervisor.runtime.signals import SignalReader
from supervisor.runtime.simulated_room import occupants
from supervisor.runtime.stream_logs import StreamLogs
from supervisor.runtime.systemd import Notifier
from supervisor.runtime.upgrade import UpgradeDesk, own_command
from supervisor.runtime.views import HostFacts
from supervisor.runtime.worker_hands import WorkerHands
from supervisor.wire.store import StoreView

log = logging.getLogger("orchctl")

KERNEL_LOG_NAME = "ORCHCTL_KERNEL_LOG"
"""Names another kernel log than /dev/kmsg, with the same lines."""
REVISIONS_AT_ONCE = 2
"""Of a pool, while one takes over from the other."""
EXIT_OK = 0
EXIT_BUG = 70


class DaemonOrder(Struct, frozen=True):
    """What one daemon is started with."""

    loaded: Loaded
    reader: ConfigReader
    places: Places
    gpus: GpuSource
    simulated: str | None
    version: str
    watchdog_s: float | None
    keys: KeyRing
    tls: Tls | None
    given: GivenSockets
    log: JsonLog
    config_store: ConfigStore
    is_file: bool = True
    """Whether `loaded` is what the operator's file says."""


class DaemonParts:
    """Owns every part, and what they tell each other."""

    _http: HttpServer

    def __init__(self, order: DaemonOrder, journal: Journal, restored: Restored, notifier: Notifier) -> None:
        self._order = order
        self._loop = asyncio.get_running_loop()
        self._journal = journal
        self._restored = restored
        self._notifier = notifier
        self._done = asyncio.Event()
        self._exit_code = EXIT_OK
        self._is_handed_over = order.given.is_handed_over
        """Asked before the sockets are taken."""
        self._is_leaving = self._keeps_engines = False
        self._signals: SignalReader | None = None
        self.handover: Handover | None = None
        """What the next image of the daemon gets, once `run` is over and there is to be one."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._build()

    def _build(self) -> None:
        config = self._order.loaded.config
        self._intents = IntentFile(self._order.places.state_dir, lambda: self._loop.time() * 1000)
        self._wishes = self._intents.read()
        order = self._order
        self._configuration = Configuration(order.loaded, order.reader, order.config_store, is_file=order.is_file)
        self._heads = ModelHeads()
        self._estimates = NeedsReader(self._heads, is_simulated=self._order.simulated is not None)
        self._drafts = self._draw_drafts()
        kept = self._wishes.intent.pools if self._wishes is not None else {}
        blueprints = self._blueprints = Blueprints(draw_first(config, kept, self._drafts.draw_now))
        self._policy = PolicyDesk(config.policy, self._loop.time)
        plans = tuple(each.plan for each in blueprints.values())
        conductor = Conductor(plans, blueprint.draw_host(config), self._policy.policy)
        self._core = CoreLoop(conductor, self._perform, self._note_bug, self._loop)
        self._answers = Answers(self._loop)
        slots = REVISIONS_AT_ONCE * sum(each.plan.slots for each in blueprints.values())
        socket = self._order.places.socket
        self._progress = ProgressTable.open(socket.with_name(f"{socket.name}.progress"), slots)
        self._logs = StreamLogs(self._core.post, self._progress)
        self._build_workers(blueprints)
        self._build_records(blueprints)
        self._build_desks(blueprints)
        self._build_outer(blueprints)

    def _build_workers(self, blueprints: Blueprints) -> None:
        instance = self._instance = _instance(self._order.places)
        self._processes = Processes(instance=instance, environ=os.environ, groups=open_cgroups(instance))
        self._found = FoundEngines(
            blueprints,
            self._processes,
            self._order.places.state_dir,
            is_simulated=self._order.simulated is not None,
        )
        self._hands = WorkerHands(
            blueprints,
            self._post_report,
            self._processes,
            lambda key: len(found.runs) if (found := self._core.state.replicas.get(key)) else 0,
            self._order.gpus,
            self._found,
            state_dir=self._order.places.state_dir,
            log_dir=self._order.places.log_dir,
            needs=self._estimates,
            is_simulated=self._order.simulated is not None,
        )

    def _build_records(self, blueprints: Blueprints) -> None:
        outputs = OutputShelf()
        runs = self._runs = Runs(blueprints, self._logs, self._hands.engine_of, self._post_fact, outputs)
        self._metrics = Metrics(lambda: self._core.state, runs.meters)
        self._metrics.registry.register(self._policy)
        self._metrics.registry.register(self._order.log)
        self._gauges = Gauges(self._metrics, runs.meters)
        self._journaling = Journaling(
            self._journal, self._logs, self._core.post, self._core.now_ms, outputs, self._note_damage
        )
        self._chronicle = Chronicle(lambda: self._core.state, self._core.now_ms)
        self._faults = FaultNotes(self._metrics.registry)
        self._needs = NeedsFile(self._order.places.state_dir)

    def _build_desks(self, blueprints: Blueprints) -> None:
        self._config_desk = ConfigDesk(
            self._core, self._answers, blueprints, self._configuration, self._drafts, self._make_room
        )
        self._rollouts = RolloutDesk(self._core, self._answers, blueprints, self._configuration, self._drafts)
        self._outlooks = OutlookDesk(
            self._core,
            self._rollouts,
            self._config_desk,
            self._configuration,
            self._drafts,
            self._order.gpus,
            self._hands.engine_pids,
            self._order.simulated,
        )
        self._parity = ParityProbe(blueprints, self._engine_of, self._configuration, self._core.post)
        self._metrics.follow_generation(lambda: self._configuration.generation)
        self._leases = LeaseDesk(
            self._core, self._answers, LeaseHolders(self._order.gpus.inventory, self._instance).held
        )
        self._self_tests = SelfTestDesk(self._core, self._answers, self._hands.test_live)
        self._upgrades = UpgradeDesk(
            fresh_id(),
            self._order.version,
            own_command(),
            self._core.post,
            lambda *, is_leaving: self._http.announce(is_leaving=is_leaving),
            self._leave,
            self._start,
        )

    def _build_outer(self, blueprints: Blueprints) -> None:
        self._performer = Performer(
            Parts(
                answers=self._answers,
                journaling=self._journaling,
                runs=self._runs,
                hands=self._hands,
                logs=self._logs,
                metrics=self._metrics,
                chronicle=self._chronicle,
                intents=self._intents,
                needs=self._needs,
                faults=self._faults,
                leases=self._leases,
                self_tests=self._self_tests,
                upgrades=self._upgrades,
                parity=self._parity,
                forget=(blueprints.drop, self._hands.forget),
                on_halted=self._done.set,
            )
        )
        if isinstance(self._order.gpus, SimulatedGpus):
            self._order.gpus.occupy(lambda: occupants(self._core.state))
        self._held = HeldWatch(self._core.post, self._hands.engine_pids)
        self._host = HostWatch(self._core.post)
        self._devices = DeviceWatch(
            self._order.gpus,
            self._core.post,
            self._gauges,
            self._faults,
            has_holds=lambda: bool(self._core.state.faults.holds),
            on_look=self._note_look,
            kernel_log=KernelLog(Path(os.environ.get(KERNEL_LOG_NAME, KMSG))),
        )
        self._files = FollowedFiles(_sources(self._order))
        self._http = self._draw_edge()

    def _note_look(self, inventory: Inventory) -> None:
        """A good look at the devices is one at the host too."""
        self._held.note(inventory)
        self._host.look()

    def _draw_drafts(self) -> Drafts:
        models_dir = self._order.places.models_dir
        return Drafts(self._configuration, self._heads.kv_bytes_per_token, self._estimates.need_of, models_dir)

    def _make_room(self, slots: int) -> None:
        self._progress.make_room(REVISIONS_AT_ONCE * slots)

    def _engine_of(self, key: str) -> EngineHttp | None:
        replica = self._core.state.replicas.get(key)
        return None if replica is None else self._hands.engine_of(key, replica.incarnation)

    def _draw_service(self) -> DaemonService:
        facts = HostFacts(
            self._order.version,
            self._order.simulated,
            self._core.now_ms(),
            self._policy.status,
            str(self._order.keys.path),
            self._processes.groups.summary,
            lambda: (*self._files.causes, *self._configuration.causes),
            generation=lambda: self._configuration.generation,
            store=StoreView(models_dir=str(self._order.places.models_dir), config_file=str(self._order.loaded.source)),
        )
        return DaemonService(
            self._core,
            self._answers,
            self._journaling,
            self._logs,
            self._gauges,
            facts,
            self._hands.log_path,
            lease_desk=self._leases,
            upgrades=self._upgrades,
            rollouts=self._rollouts,
            config_desk=self._config_desk,
            outlook_desk=self._outlooks,
            self_test_desk=self._self_tests,
            intents=self._intents,
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
            given=self._order.given,
        )

    def _perform(self, effect: Effect) -> None:
        self._performer.perform(effect)

    def _post_report(self, event: Event) -> None:
        """What workers report; metrics and log see an end; the devices are looked at where it concerns them."""
        if isinstance(event, EngineExited):
            self._metrics.note_exit(event)
            self._chronicle.note_exit(event)
            if event.kind in OF_DEVICE:
                self._devices.look_soon()  # do not wait for the next look (ORCH-3038)
        elif isinstance(event, StepPassed) and event.is_degraded:
            self._metrics.note_unproved(event)
        self._core.post(event)

    def _post_fact(self, event: Event) -> None:
        """The relay's facts; the metrics see a first token before the core does."""
        if isinstance(event, FirstTokenCame):
            self._metrics.note_first_token(event, self._core.now_ms())
        self._core.post(event)

    def _leave(self) -> str | None:
        """The next image of the daemon may take over, and gets the signals from here on; or the cause why not."""
        if self._done.is_set() or (cause := quiesce.find_unrest(self._core.state)) is not None:
            return "the daemon stops" if self._done.is_set() else cause
        if self._signals is not None:
            self._signals.close()
        self._is_leaving = self._keeps_engines = True
        self._done.set()
        return None

    def _note_bug(self, _: BaseException) -> None:
        self._exit_code = EXIT_BUG
        self._done.set()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._note_task_done)
        return task

    def _note_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (bug := task.exception()):
            log.critical("a task of the daemon broke", exc_info=bug)
            self._note_bug(bug)

    def _note_damage(self, damage: Damage) -> None:
        self._metrics.note_damage()
        log.error("the journal was damaged", extra=structs.asdict(damage))


def _sources(order: DaemonOrder) -> list[Source]:
    """The files that are followed while the daemon runs."""
    sources = [Source("API keys", (order.keys.path,), order.keys.take_up, (KeysError,))]
    if (tls := order.tls) is not None:
        sources.append(Source("TLS certificate", (tls.cert_file, tls.key_file), tls.take_up, (TlsError,)))
    return sources


def _instance(places: Places) -> str:
    """What marks the engines of this daemon, and of whoever runs in its place after a crash."""
    return hashlib.sha256(str(places.state_dir).encode()).hexdigest()[:16]
