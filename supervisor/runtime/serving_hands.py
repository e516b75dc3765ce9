"""What is done to workers while they serve: counted, probed, seen idle, looked at, tested once more.

A worker is known here by pool and incarnation. Each answer is an event or a fact; what follows is the core's business.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.base import Adapter, EngineProps
from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.runtime.blueprint import PoolBlueprint
from supervisor.runtime.engine_http import EngineHttp
from supervisor.runtime.exit_proof import taints
from supervisor.runtime.gpus import GpuSource
from supervisor.runtime.model_files import ModelFiles
from supervisor.runtime.probes import ProbeError
from supervisor.runtime.processes import EngineProcess
from supervisor.runtime.residency import Residency
from supervisor.runtime.residency_reading import read_residency, read_spill
from supervisor.runtime.self_test import ANSWER_S, SLOT_IDLE_S, StepResult, find_silence, self_test
from supervisor.runtime.slot_watch import wait_busy_at_most
from supervisor.runtime.token_count import count_longest
from supervisor.runtime.worker_records import WorkerRecord

log = logging.getLogger(__name__)

FAULT_ANSWER_S = 10.0
"""So long an idle worker has for a few tokens, after a fault of its GPU."""


@dataclass(slots=True)
class Worker:
    """One incarnation. `record` is its word on disk, `props` what it said of itself, once it did."""

    process: EngineProcess
    http: EngineHttp
    record: WorkerRecord
    is_adopted: bool
    props: EngineProps | None = None
    is_tainted: bool = False
    """Whether it was given a text that would pass for its own last words."""
    spill: str | None = None
    """What its log said of memory outside of its GPUs, before it was given anything."""


class ServingHands:
    """Knows the workers. `busy` gives the runs of a pool that the core counts as running."""

    def __init__(
        self,
        blueprints: Mapping[str, PoolBlueprint],
        post: Callable[[ev.Event], None],
        busy: Callable[[str], int],
        gpus: GpuSource,
        *,
        log_dir: Path,
        is_simulated: bool,
    ) -> None:
        self._blueprints = blueprints
        self._post = post
        self._busy = busy
        self._gpus = gpus
        self._log_dir = log_dir
        self._is_simulated = is_simulated
        self._models = ModelFiles()
        self._workers: dict[tuple[str, int], Worker] = {}
        self._others: set[asyncio.Task[None]] = set()

    def engine_of(self, pool_id: str, incarnation: int) -> EngineHttp | None:
        """The client of a live worker."""
        worker = self._workers.get((pool_id, incarnation))
        return worker.http if worker else None

    def engine_pids(self) -> frozenset[int]:
        """The processes of all live workers; each leads a session."""
        return frozenset(worker.process.pid for worker in self._workers.values())

    def log_path(self, pool_id: str) -> Path:
        """Where the engine of a pool writes."""
        return self._log_dir / f"{pool_id}.log"

    def _adapter(self, pool_id: str) -> Adapter:
        adapter = self._blueprints[pool_id].adapter
        assert adapter is not None, f"{pool_id} was begun without an adapter"
        return adapter

    def count_tokens(self, effect: ef.CountTokens) -> None:
        """Ask the engine how long a task's prompt is, or its longest input."""

        async def count() -> None:
            tokens: int | None = None
            worker = next((each for key, each in self._workers.items() if key[0] == effect.pool_id), None)
            if worker is not None:
                ctx = worker.props.ctx_per_slot if worker.props else effect.task.ctx
                try:
                    tokens = await count_longest(worker.http, self._adapter(effect.pool_id), effect.task, ctx)
                except ProbeError as error:
                    log.warning("tokenize failed", extra={"pool_id": effect.pool_id, "cause": str(error)})
            self._post(ev.TokensCounted(effect.task.job_id, tokens))

        self._spawn_other(count())

    def note_given(self, effect: ef.StartRun) -> None:
        """An engine is given a task: what it writes may be the task's words from now on."""
        worker = self._workers.get((effect.pool_id, effect.incarnation))
        if worker is not None and not worker.is_tainted:
            worker.is_tainted = taints(self._adapter(effect.pool_id).explain_exit, effect.task.body)

    def probe_idle(self, effect: ef.ProbeIdleEngine) -> None:
        """Ask an idle engine for a short answer."""

        async def probe() -> None:
            key, blueprint = (effect.pool_id, effect.incarnation), self._blueprints[effect.pool_id]
            worker = self._workers.get(key)
            if worker is None or worker.props is None:
                return
            cause = await find_silence(
                worker.http,
                self._adapter(effect.pool_id),
                worker.props,
                blueprint.asked_of,
                effect.within_ms / 1000,
                slot=effect.slot,
            )
            self._post(ev.IdleEngineProbed(*key, effect.run_id, cause))

        self._spawn_other(probe())

    def confirm_slot_idle(self, effect: ef.ConfirmSlotIdle) -> None:
        """See that the engine has stopped working on an aborted run."""

        async def confirm() -> None:
            worker = self._workers.get((effect.pool_id, effect.incarnation))
            if worker is None:
                return
            is_idle = await wait_busy_at_most(
                worker.http,
                self._adapter(effect.pool_id),
                lambda: self._busy(effect.pool_id),
                effect.within_ms / 1000,
            )
            if is_idle:
                self._post(ev.SlotsSeenIdle(effect.pool_id, effect.incarnation, (effect.run_id,)))
            else:
                self._post(ev.SlotStuck(effect.pool_id, effect.incarnation, effect.run_id))

        self._spawn_other(confirm())

    def probe(self, effect: ef.ProbeEngine) -> None:
        """Ask for a token after a fault of its GPU."""

        async def probe() -> None:
            key = (effect.pool_id, effect.incarnation)
            worker = self._workers.get(key)
            if worker is None or worker.props is None:
                return
            workloads = self._blueprints[effect.pool_id].asked_of
            silence = await find_silence(
                worker.http, self._adapter(effect.pool_id), worker.props, workloads, FAULT_ANSWER_S
            )
            self._post(ev.EngineProbed(*key, silence and f"{effect.cause}, and then {silence}"))

        self._spawn_other(probe())

    def _spawn_other(self, work: Coroutine[Any, Any, None]) -> None:
        """A task that no step owns; kept until it is done, and its bug is logged."""

        def done(task: asyncio.Task[None]) -> None:
            self._others.discard(task)
            bug = None if task.cancelled() else task.exception()
            if isinstance(bug, OSError):  # the host is short of something: no bug
                log.error("what belongs to a worker could not be finished", extra={"cause": str(bug)})
            elif bug is not None:
                log.error("a task of a worker broke", exc_info=bug)

        task = asyncio.create_task(work)
        self._others.add(task)
        task.add_done_callback(done)

    async def look_at_residency(self, pool_id: str, incarnation: int) -> Residency | None:
        """Where a worker holds its memory now; None where it is gone."""
        worker = self._workers.get((pool_id, incarnation))
        return None if worker is None else await self._look_at((pool_id, incarnation), worker)

    async def _look_at(self, key: tuple[str, int], worker: Worker) -> Residency:
        return await read_residency(
            worker.process.pids,
            worker.record.devices,
            self._gpus.inventory,
            self._models.size_bytes(key) or 0,
            spill=worker.spill,
            is_simulated=self._is_simulated,
        )

    async def _look_first(self, key: tuple[str, int], worker: Worker) -> Residency:
        """The look before its first task. An adopted engine may have had tasks: its log proves nothing any more."""
        if not (worker.is_adopted or self._is_simulated):
            run = f"{key[0]}/{worker.record.incarnation} {worker.process.mark}"
            try:
                worker.spill = await read_spill(self.log_path(key[0]), run, self._adapter(key[0]).find_spill)
            except OSError as error:
                found = await self._look_at(key, worker)
                detail = f"not proved: its log cannot be read: {error.strerror}"
                return Residency(passed=True, is_proved=False, detail=detail) if found.passed else found
        return await self._look_at(key, worker)

    async def test_live(self, effect: ef.RunLiveTest) -> Sequence[StepResult]:
        """Run the self-test beside the tasks of a worker that serves; nothing where it is gone."""
        worker = self._workers.get((effect.pool_id, effect.incarnation))
        if worker is None or worker.props is None:
            return ()
        http, adapter, blueprint = worker.http, self._adapter(effect.pool_id), self._blueprints[effect.pool_id]
        return await self_test(
            http,
            adapter,
            worker.props,
            workloads=blueprint.asked_of,
            answer_s=min(ANSWER_S, blueprint.plan.wall_ms / 1000),
            slot=effect.slot,
            see_idle=lambda: wait_busy_at_most(http, adapter, lambda: self._busy(effect.pool_id), SLOT_IDLE_S),
        )
