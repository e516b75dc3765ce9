"""The Prometheus page (ORCH-3028): counted from the core's effects, scraped from its state.

Every series carries `engine` and `engine_version` ("none" before an engine is known). Label values come from the
configuration and from enums only: no id of a task, session, key or correlation is ever one.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from adapters.base import ExitKind
from supervisor.core import sessions
from supervisor.core.breaker import Trust
from supervisor.core.devices import Withheld
from supervisor.core.effects import (
    AnswerAccepted,
    AnswerRefused,
    CommitFinish,
    NoteEviction,
    NoteRollout,
    NoteWorker,
    StartRun,
)
from supervisor.core.events import EngineExited, FirstTokenCame, StepPassed
from supervisor.core.lifecycle import Phase
from supervisor.core.memory_need import reserve_mib
from supervisor.core.plan import public_id_of
from supervisor.core.refusals import Refused
from supervisor.core.replicas import Replica
from supervisor.core.state import State
from supervisor.core.tasks import Task
from supervisor.runtime import host_memory
from supervisor.runtime.exit_proof import OF_MEMORY
from supervisor.runtime.percentiles import Recent
from supervisor.runtime.relay_facts import TokenMeter
from supervisor.wire.codes import Code, FinishReason, Priority, Reason
from supervisor.wire.pools import DeviceView

LATENCY_EDGES_MS = (5, 10, 25, 50, 100, 250, 500, 900, 1_500, 2_500, 5_000, 10_000, 30_000, 60_000, float("inf"))
ERROR_EDGES_MS = (1, 2, *LATENCY_EDGES_MS)
ERROR_EDGES_RATIO = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 5, float("inf"))
WAITED_MS_MIN = 10
"""A shorter queue time is none: a share of it would say nothing about a prediction."""
_BASE = ("engine", "engine_version")
_POOL = (*_BASE, "pool_id", "priority")
_NONE = "none"
_TRUST = {Trust.CLOSED: 0.0, Trust.HALF_OPEN: 0.5, Trust.PROBING: 0.5, Trust.OPEN: 1.0}


class Metrics:
    """All series of one daemon, in a registry of its own."""

    def __init__(self, state: Callable[[], State], meters: Mapping[str, TokenMeter]) -> None:
        self._state = state
        self._meters = meters
        self.registry = CollectorRegistry()
        self.first_token_ms: defaultdict[str, Recent] = defaultdict(Recent)
        self.queue_time_ms: defaultdict[str, Recent] = defaultdict(Recent)
        self.predict_error_ms: defaultdict[str, Recent] = defaultdict(Recent)
        self.predict_error_percent: defaultdict[str, Recent] = defaultdict(Recent)
        self._define_counters()
        self._define_gauges()

    def _define_counters(self) -> None:
        def counter(name: str, text: str, labels: tuple[str, ...]) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(name, text, _POOL, buckets=LATENCY_EDGES_MS, registry=self.registry)

        replica = (*_POOL, "replica_id")
        self._enqueued = counter("tasks_enqueued", "Tasks accepted and on disk.", replica)
        self._started = counter("tasks_started", "Runs given to a worker.", replica)
        self._canceled = counter("tasks_canceled", "Tasks ended by a cancel.", (*_BASE, "reason"))
        self._rejected = counter("tasks_rejected", "Submits refused before they were accepted.", (*_BASE, "reason"))
        self._auth_failures = counter("auth_failures", "Requests turned away at the door.", (*_BASE, "reason"))
        self._dropped = counter("tasks_dropped", "Waiting tasks dropped from a full queue.", (*_BASE, "policy"))
        self._finished = counter("tasks_finished", "Tasks ended, canceled ones aside.", (*_BASE, "outcome"))
        self._tokens_in = counter("tokens_in", "Prompt tokens of finished tasks.", (*_BASE, "pool_id"))
        self._tokens_out = counter("tokens_out", "Tokens of finished tasks.", (*_BASE, "pool_id"))
        self._restarts = counter("worker_restarts", "Workers that failed and are started again.", (*_BASE, "pool_id"))
        self._diverged = counter("streams_diverged", "Re-runs that differed from what was delivered.", _BASE)
        self._damages = counter("journal_damages", "Damaged journals that were set aside.", _BASE)
        self._preload = counter("preload", "Attempts to make a pool Ready.", (*_BASE, "pool_id", "outcome"))
        self._ooms = counter("oom_events", "Engines that ended for want of memory.", (*_BASE, "pool_id", "kind"))
        self._unproved = counter("steps_unproved", "Steps that this host cannot prove.", (*_BASE, "pool_id", "step"))
        self._rollouts = counter("rollouts", "Steps of revisions of pools.", (*_BASE, "pool_id", "kind", "outcome"))
        self._evictions = counter("eviction_events", "Sessions whose KV was given up.", (*_BASE, "pool_id"))
        self._warmth_misses = counter(
            "kv_warmth_misses", "Turns that were to find the KV of their session and did not.", (*_BASE, "pool_id")
        )
        self._first_token = histogram("latency_first_token_ms", "Dispatch to first token.")
        self._decode = histogram("latency_decode_ms", "Decoding of finished tasks.")
        self._queue_time = histogram("queue_time_ms", "Admission to dispatch.")
        self._predict_error = Histogram(
            "predicted_start_error_ms",
            "Predicted against real start, absolute.",
            _POOL,
            buckets=ERROR_EDGES_MS,
            registry=self.registry,
        )
        self._predict_ratio = Histogram(
            "predicted_start_error_ratio",
            "The same as a share of the real queue time, of tasks that waited.",
            _POOL,
            buckets=ERROR_EDGES_RATIO,
            registry=self.registry,
        )

    def _define_gauges(self) -> None:
        def gauge(name: str, text: str, labels: tuple[str, ...] = _BASE) -> Gauge:
            return Gauge(name, text, labels, registry=self.registry)

        pool = (*_BASE, "pool_id")
        self._depth = gauge("queue_depth", "Waiting tasks.", _POOL)
        self._slots = gauge("slots_total", "Slots of a worker.", pool)
        self._busy = gauge("slots_busy", "Slots that cannot take a task.", pool)
        self._ready = gauge("pool_ready", "1 while the pool takes tasks.", pool)
        trust = "0 closed, 0.5 half-open, 1 open. Kind restart: of its starts; replica: of its runs."
        self._breaker = gauge("breaker_state", trust, (*pool, "kind"))
        self._relayed = gauge("tokens_relayed", "Tokens relayed since the daemon started.", pool)
        self._kv_usage = gauge("kv_cache_usage_ratio", "Share of the slots' context that KV of sessions holds.", pool)
        self._generation = gauge("config_generation", "Configurations that took effect.")
        self._tasks = gauge("tasks_alive", "Tasks by state; with the counters they conserve.", (*_BASE, "state"))
        self._host_ram = gauge("host_ram_used_bytes", "Used memory of the host.")
        self._lag = gauge("event_loop_lag_ms", "Delay of the event loop, worst of the last interval.")
        self._vram_used = gauge("vram_used_bytes", "Used memory of a GPU.", (*_BASE, "device"))
        self._vram_free = gauge("vram_free_bytes", "Free memory of a GPU.", (*_BASE, "device"))
        self._vram_need = gauge("vram_need_bytes", "What a worker was promised of a GPU.", (*pool, "device"))
        self._vram_reserve = gauge("vram_reserve_bytes", "What must stay free beside that need.", (*pool, "device"))
        self._withheld = gauge("gpu_withheld", "1 while workers may not use a GPU.", (*_BASE, "device", "why"))
        self._gpu = gauge("gpu_utilization", "Busy share of a GPU, 0 to 1.", (*_BASE, "device"))
        self._stale = gauge("gpu_figures_stale", "1 while a GPU's figures are old ones.", (*_BASE, "device"))

    # Effects ----------------------------------------------------------------------------------------------------

    def note_accepted(self, effect: AnswerAccepted) -> None:
        """A task is enqueued; a repeated submit is not."""
        if effect.ticket != effect.job_id:
            return
        self._note_enqueued(self._state().tasks[effect.job_id])

    def note_restored(self, unfinished: Iterable[Task]) -> None:
        """What an earlier daemon left is enqueued under this one: its counters began anew, and shall conserve too."""
        for task in unfinished:
            self._note_enqueued(task)

    def _note_enqueued(self, task: Task) -> None:
        home = self._state().sets.get(task.set_id)
        first = home.members[0] if home and home.members else None
        base = _labels(first) if first else (task.engine, _NONE)
        labels = (*base, first.plan.public_id if first else _NONE, task.priority, _NONE)
        self._enqueued.labels(*labels).inc()

    def note_refused(self, effect: AnswerRefused) -> None:
        """A submit was refused."""
        self._rejected.labels(*self._labels_of(effect.refused), _word(effect.refused)).inc()

    def _labels_of(self, refused: Refused) -> tuple[str, str]:
        replica = self._replica_of(refused.pool_id or "")
        return _labels(replica) if replica else (refused.engine or _NONE, _NONE)

    def _replica_of(self, key: str) -> Replica | None:
        """The worker, or where that revision is gone another one of its pool."""
        replicas = self._state().replicas
        siblings = (each for each in replicas.values() if each.plan.public_id == public_id_of(key))
        return replicas.get(key) or next(siblings, None)

    def note_started(self, effect: StartRun) -> None:
        """A run was given to a worker."""
        replica = self._state().replicas[effect.pool_id]
        task = effect.task
        pool_id = replica.plan.public_id
        labels = (*_labels(replica), pool_id, task.priority)
        self._started.labels(*labels, replica.replica_id).inc()
        if task.attempt > 1:
            return
        self._queue_time.labels(*labels).observe(task.queue_time_ms)
        self.queue_time_ms[pool_id].add(task.queue_time_ms)
        if task.predicted_start_ms is not None:
            self._note_prediction(task, task.predicted_start_ms, pool_id, labels)

    def _note_prediction(self, task: Task, predicted_ms: int, pool_id: str, labels: tuple[str, ...]) -> None:
        error_ms = abs(task.queue_time_ms - predicted_ms)
        self._predict_error.labels(*labels).observe(error_ms)
        self.predict_error_ms[pool_id].add(error_ms)
        if max(task.queue_time_ms, predicted_ms) >= WAITED_MS_MIN:
            ratio = error_ms / max(task.queue_time_ms, WAITED_MS_MIN)
            self._predict_ratio.labels(*labels).observe(ratio)
            self.predict_error_percent[pool_id].add(100 * ratio)

    def note_first_token(self, event: FirstTokenCame, now_ms: float) -> None:
        """The first token of a run came."""
        found = self._state().task_of_run(event.run_id)
        if found is None:
            return
        task, running = found
        replica = self._state().replicas[running.pool_id]
        took_ms = now_ms - running.started_ms
        pool_id = replica.plan.public_id
        self._first_token.labels(*_labels(replica), pool_id, task.priority).observe(took_ms)
        self.first_token_ms[pool_id].add(took_ms)

    def note_finish(self, effect: CommitFinish) -> None:
        """A task ended: canceled, dropped or finished."""
        last_run = effect.task.last_run
        replica = self._replica_of(last_run.pool_id) if last_run else None
        base = _labels(replica) if replica else (effect.task.engine, _NONE)
        outcome = effect.outcome
        if outcome.finish_reason is FinishReason.CANCELED:
            self._canceled.labels(*base, "canceled").inc()
        elif outcome.is_dropped and outcome.error:
            self._dropped.labels(*base, outcome.error.policy or _NONE).inc()
        else:
            self._finished.labels(*base, outcome.error.code if outcome.error else str(outcome.finish_reason)).inc()
        if outcome.error and (outcome.error.code, outcome.error.reason) == (Code.WORKER_RESET, Reason.DETERMINISM):
            self._diverged.labels(*base).inc()
        if replica:
            pool_id = replica.plan.public_id
            self._tokens_in.labels(*base, pool_id).inc(outcome.tokens_in or 0)
            self._tokens_out.labels(*base, pool_id).inc(outcome.tokens_out)
            self._decode.labels(*base, pool_id, effect.task.priority).observe(outcome.decode_ms)
        if replica and last_run and last_run.kv_warmth and not outcome.kv_warmth and outcome.tokens_out:
            self._warmth_misses.labels(*base, replica.plan.public_id).inc()

    def note_eviction(self, effect: NoteEviction) -> None:
        """The KV of a session was given up (ORCH-3022)."""
        self._evictions.labels(*_labels(self._replica_of(effect.pool_id)), public_id_of(effect.pool_id)).inc()

    def note_worker(self, effect: NoteWorker) -> None:
        """A worker changed its phase."""
        base = (*_labels(self._replica_of(effect.pool_id)), public_id_of(effect.pool_id))
        if effect.phase == Phase.READY:
            self._preload.labels(*base, "ready").inc()
        elif effect.phase in (Phase.BACKOFF, Phase.BROKEN):
            self._preload.labels(*base, "failed").inc()
            self._restarts.labels(*base).inc()

    def note_exit(self, event: EngineExited) -> None:
        """An engine ended; for want of memory, where its end proves that (ORCH-3039)."""
        if (kind := OF_MEMORY.get(ExitKind(event.kind))) is not None:
            self._ooms.labels(
                *_labels(self._state().replicas.get(event.pool_id)), public_id_of(event.pool_id), kind
            ).inc()

    def note_unproved(self, event: StepPassed) -> None:
        """A step passed because it could not be carried out on this host."""
        self._unproved.labels(
            *_labels(self._state().replicas.get(event.pool_id)), public_id_of(event.pool_id), event.name
        ).inc()

    def note_rollout(self, effect: NoteRollout) -> None:
        """A revision came further."""
        base = _labels(self._replica_of(effect.pool_id))
        self._rollouts.labels(*base, effect.pool_id, effect.kind, effect.outcome).inc()

    def follow_generation(self, generation: Callable[[], int]) -> None:
        """Where to ask for the generation of the configuration in force."""
        self._generation.labels(_NONE, _NONE).set_function(generation)

    def note_damage(self) -> None:
        """A damaged journal was set aside, at the start or while running."""
        self._damages.labels(_NONE, _NONE).inc()

    # The page ---------------------------------------------------------------------------------------------------

    def note_auth_failure(self, reason: str) -> None:
        """A request had no key that is in force, or not the scope."""
        self._auth_failures.labels(_NONE, _NONE, reason).inc()

    def note_lag(self, lag_ms: float) -> None:
        """The worst delay of the event loop since the last note."""
        self._lag.labels(_NONE, _NONE).set(lag_ms)

    def note_devices(self, devices: Iterable[DeviceView]) -> None:
        """All GPUs that there are: one that is gone has no series, nor has a figure that a GPU does not give."""
        for gauge in (self._vram_used, self._vram_free, self._gpu, self._stale):
            gauge.clear()
        for device in devices:
            labels = (_NONE, _NONE, device.uuid)
            self._stale.labels(*labels).set(device.stale)
            if device.vram_used_mib is not None and device.vram_free_mib is not None:
                self._vram_used.labels(*labels).set(device.vram_used_mib * 2**20)
                self._vram_free.labels(*labels).set(device.vram_free_mib * 2**20)
            if device.utilization_percent is not None:
                self._gpu.labels(*labels).set(device.utilization_percent / 100)

    def page(self) -> bytes:
        """The text page, with the gauges as they are now."""
        state = self._state()
        for gauge in (
            self._depth,
            self._slots,
            self._busy,
            self._ready,
            self._breaker,
            self._relayed,
            self._kv_usage,
            self._vram_need,
            self._vram_reserve,
            self._withheld,
        ):
            gauge.clear()
        for replica in state.replicas.values():
            self._scrape(state, replica)
        for device in state.devices.seen:
            for why in Withheld:
                self._withheld.labels(_NONE, _NONE, device.uuid, why).set(state.devices.is_withheld(device.uuid, why))
        waiting = sum(len(home.waiting) for home in state.sets.values())
        self._tasks.labels(_NONE, _NONE, "waiting").set(waiting)
        self._tasks.labels(_NONE, _NONE, "running").set(len(state.runs))
        self._host_ram.labels(_NONE, _NONE).set(host_memory.look().used_bytes)
        return generate_latest(self.registry)

    def _scrape(self, state: State, replica: Replica) -> None:
        """One worker. Slots of several revisions of a pool add up; of two with one version the serving one is shown."""
        base = (*_labels(replica), replica.plan.public_id)
        self._slots.labels(*base).inc(replica.slots)
        self._busy.labels(*base).inc(replica.load)
        for uuid, mib in replica.claims:
            self._vram_need.labels(*base, uuid).inc(mib * 2**20)
            self._vram_reserve.labels(*base, uuid).inc(reserve_mib(mib) * 2**20)
        self._ready.labels(*base).inc(replica.is_serving)
        if not replica.is_serving and any(
            other.is_serving for other in state.replicas.values() if other.plan.public_id == replica.plan.public_id
        ):
            return
        self._breaker.labels(*base, "restart").set(_restart_breaker(replica))
        self._breaker.labels(*base, "replica").set(_TRUST[replica.breaker.trust])
        self._relayed.labels(*base).set(self._meters[replica.plan.public_id].tokens_total)
        room = replica.slots * replica.ctx_per_slot
        self._kv_usage.labels(*base).set(min(sessions.kv_tokens(state, replica) / room, 1.0) if room else 0.0)
        home = state.sets[replica.set_id]
        if home.members[0] is replica:  # the queue is the set's; its first member shows it
            for priority in Priority:
                self._depth.labels(*base, priority).set(home.waiting.depth(priority))


def _labels(replica: Replica | None) -> tuple[str, str]:
    if replica is None:
        return _NONE, _NONE
    return replica.plan.engine, replica.engine_version or _NONE


def _restart_breaker(replica: Replica) -> float:
    """Open while restarts are given up; half-open from the one start that follows until it was stable."""
    return 1.0 if replica.phase is Phase.BROKEN else 0.5 * replica.history.is_open


def _word(refused: Refused) -> str:
    return refused.reason or refused.code
