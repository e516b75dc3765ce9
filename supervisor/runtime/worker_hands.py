"""What is done to workers: verify, spawn, await, inspect, test, stop. Each ends in exactly one event.

A worker is known here by pool and incarnation: its process, its HTTP client, its key. Which step follows is the core's
business; a step that fails, also by a bug of ours, is reported as failed.
"""

import asyncio
import hashlib
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.base import Adapter, EngineProps, PlanError
from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.runtime import engine_logs, probes, worker_records
from supervisor.runtime.blueprint import PoolBlueprint
from supervisor.runtime.engine_http import EngineHttp
from supervisor.runtime.gpus import GpuSource
from supervisor.runtime.model_files import ModelFileError, ModelFiles
from supervisor.runtime.probes import ProbeError
from supervisor.runtime.processes import EngineProcess, Processes
from supervisor.runtime.processes_env import SpawnError, SpawnOrder
from supervisor.runtime.processes_port import HOST, pick_port
from supervisor.runtime.room import RoomError, measure
from supervisor.runtime.self_test import ANSWER_S, self_test
from supervisor.runtime.slot_watch import wait_busy_at_most
from supervisor.runtime.token_count import count_longest

log = logging.getLogger(__name__)

KEY_BYTES = 32
PORTS_REMEMBERED = 64
HEALTH_SLACK_S = 1.0
"""The core's own deadline for loading fires first."""


_StepEffect = ef.VerifyModel | ef.MeasureRoom | ef.SpawnEngine | ef.AwaitHealth | ef.InspectEngine | ef.RunSelfTest


@dataclass(slots=True)
class Worker:
    """One incarnation. `props` is what it said of itself, once it did."""

    process: EngineProcess
    http: EngineHttp
    port: int
    props: EngineProps | None = None


class WorkerHands:
    """Performs the effects about workers. `busy` gives the runs of a pool that the core counts as running."""

    def __init__(
        self,
        blueprints: Mapping[str, PoolBlueprint],
        post: Callable[[ev.Event], None],
        processes: Processes,
        busy: Callable[[str], int],
        gpus: GpuSource,
        *,
        state_dir: Path,
        log_dir: Path,
        is_simulated: bool,
    ) -> None:
        self._blueprints = blueprints
        self._post = post
        self._processes = processes
        self._busy = busy
        self._gpus = gpus
        self._state_dir = state_dir
        self._log_dir = log_dir
        self._is_simulated = is_simulated
        self._models = ModelFiles()
        self._ports_given: deque[int] = deque(maxlen=PORTS_REMEMBERED)
        self._workers: dict[tuple[str, int], Worker] = {}
        self._steps: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._others: set[asyncio.Task[None]] = set()

    def engine_of(self, pool_id: str, incarnation: int) -> EngineHttp | None:
        """The client of a live worker."""
        worker = self._workers.get((pool_id, incarnation))
        return worker.http if worker else None

    def log_path(self, pool_id: str) -> Path:
        """Where the engine of a pool writes."""
        return self._log_dir / f"{pool_id}.log"

    def _adapter(self, pool_id: str) -> Adapter:
        adapter = self._blueprints[pool_id].adapter
        assert adapter is not None, f"{pool_id} was begun without an adapter"
        return adapter

    # Steps ------------------------------------------------------------------------------------------------------

    def _begin(self, effect: _StepEffect, step: Awaitable[ev.Event]) -> None:
        """Run one step of a worker as a task that ends in its event, also when it fails."""
        key = (effect.pool_id, effect.incarnation)

        async def run() -> None:
            try:
                event = await step
            except (ProbeError, ModelFileError, PlanError, RoomError, SpawnError) as error:
                event = ev.StepFailed(*key, cause=str(error))
            except Exception as bug:
                log.exception("a step of a worker broke", extra={"pool_id": key[0], "incarnation": key[1]})
                event = ev.StepFailed(*key, cause=f"a bug in the daemon: {type(bug).__name__}")
            if self._steps.get(key) is asyncio.current_task():
                del self._steps[key]
            self._post(event)

        self._steps[key] = asyncio.create_task(run())

    def verify_model(self, effect: ef.VerifyModel) -> None:
        """Check the digest of the model file."""

        async def step() -> ev.Event:
            artifact = self._blueprints[effect.pool_id].artifact
            assert artifact is not None
            digest = await self._models.verify(artifact.path, artifact.digest)
            return ev.ModelVerified(effect.pool_id, effect.incarnation, digest)

        self._begin(effect, step())

    def measure_room(self, effect: ef.MeasureRoom) -> None:
        """See what the worker needs and what is free."""
        blueprint = self._blueprints[effect.pool_id]
        assert blueprint.artifact is not None
        path = blueprint.artifact.path
        self._begin(effect, measure(blueprint.plan, effect.incarnation, path, effect.devices, self._gpus))

    def spawn(self, effect: ef.SpawnEngine) -> None:
        """Start the process, on its devices and with a key of its own."""
        self._begin(effect, self._spawn(effect))

    async def _spawn(self, effect: ef.SpawnEngine) -> ev.Event:
        key, pool_id = (effect.pool_id, effect.incarnation), effect.pool_id
        port, api_key = self._pick_port(), secrets.token_hex(KEY_BYTES)
        spec = self._blueprints[pool_id].launch_spec(
            port=port, api_key=api_key, devices=effect.devices, is_simulated=self._is_simulated
        )
        plan = self._adapter(pool_id).plan_launch(spec)
        order = SpawnOrder(
            name=f"{pool_id}/{effect.incarnation}",
            argv=plan.argv,
            env=plan.env,
            devices=effect.devices,
            cwd=self._blueprints[pool_id].config_dir,
            log_path=self.log_path(pool_id),
        )
        process = await self._processes.spawn(order, lambda _, returncode: self._note_exit(key, returncode))
        self._workers[key] = Worker(process, EngineHttp(HOST, port, api_key), port)
        await asyncio.to_thread(self._record, key, process, port, api_key, plan.argv)
        return ev.EngineSpawned(*key, pid=process.pid, port=port)

    def _pick_port(self) -> int:
        """A port that no worker of ours has, nor was given and has not bound yet: two pools may spawn at once."""
        port = pick_port(avoid={*(worker.port for worker in self._workers.values()), *self._ports_given})
        self._ports_given.append(port)
        return port

    def _record(
        self, key: tuple[str, int], process: EngineProcess, port: int, api_key: str, argv: tuple[str, ...]
    ) -> None:
        """Leave word of the process for a daemon that finds it running."""
        facts = worker_records.process_facts(process.pid)
        if facts is None:
            return
        record = worker_records.WorkerRecord(
            pool_id=key[0],
            incarnation=key[1],
            pid=process.pid,
            start_ticks=facts.start_ticks,
            boot_id=worker_records.current_boot_id(),
            port=port,
            api_key=api_key,
            launch_digest=hashlib.sha256("\0".join(argv).encode()).hexdigest(),
        )
        worker_records.write(self._state_dir, record)

    def _note_exit(self, key: tuple[str, int], returncode: int) -> None:
        """The process is gone; say why, as far as its exit status and last words prove it."""
        self._spawn_other(self._explain_exit(key, returncode))

    async def _explain_exit(self, key: tuple[str, int], returncode: int) -> None:
        worker = self._workers.get(key)
        run = f"{key[0]}/{key[1]} {worker.process.mark}" if worker else None
        tail = await asyncio.to_thread(engine_logs.tail, self.log_path(key[0]), run=run)
        explanation = self._adapter(key[0]).explain_exit(returncode, tail)
        self._post(ev.EngineExited(*key, kind=explanation.kind, cause=explanation.cause))

    def await_health(self, effect: ef.AwaitHealth) -> None:
        """Wait until the engine answers that it is up."""
        within_s = self._blueprints[effect.pool_id].plan.load_timeout_ms / 1000 + HEALTH_SLACK_S

        async def step() -> ev.Event:
            await probes.wait_healthy(self._worker(effect).http, self._adapter(effect.pool_id), within_s)
            return ev.EngineHealthy(effect.pool_id, effect.incarnation)

        self._begin(effect, step())

    def inspect(self, effect: ef.InspectEngine) -> None:
        """Read what the engine says of itself, with proof that it is ours."""

        async def step() -> ev.Event:
            worker = self._worker(effect)
            props = worker.props = await probes.read_props(worker.http, self._adapter(effect.pool_id))
            return ev.EngineInspected(
                effect.pool_id,
                effect.incarnation,
                engine_version=props.engine_version,
                slots=props.slots,
                ctx_per_slot=props.ctx_per_slot,
            )

        self._begin(effect, step())

    def test(self, effect: ef.RunSelfTest) -> None:
        """Run the self-test; each step that passes is reported by name."""

        async def step() -> ev.Event:
            worker = self._worker(effect)
            assert worker.props is not None
            answer_s = min(ANSWER_S, self._blueprints[effect.pool_id].plan.wall_ms / 1000)
            adapter = self._adapter(effect.pool_id)
            workloads = self._blueprints[effect.pool_id].asked_of
            for result in await self_test(worker.http, adapter, worker.props, workloads=workloads, answer_s=answer_s):
                if not result.passed:
                    raise ProbeError(f"self-test {result.name}: {result.detail}")
                self._post(
                    ev.StepPassed(effect.pool_id, effect.incarnation, result.name, result.took_ms, result.detail)
                )
            return ev.EngineTested(effect.pool_id, effect.incarnation)

        self._begin(effect, step())

    def _worker(self, effect: ef.AwaitHealth | ef.InspectEngine | ef.RunSelfTest) -> Worker:
        worker = self._workers.get((effect.pool_id, effect.incarnation))
        if worker is None:
            raise ProbeError("the process is gone")
        return worker

    # While it serves --------------------------------------------------------------------------------------------

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

    def _spawn_other(self, work: Coroutine[Any, Any, None]) -> None:
        """A task that no step owns; kept until it is done, and its bug is logged."""

        def done(task: asyncio.Task[None]) -> None:
            self._others.discard(task)
            if not task.cancelled() and (bug := task.exception()):
                log.error("a task of a worker broke", exc_info=bug)

        task = asyncio.create_task(work)
        self._others.add(task)
        task.add_done_callback(done)

    # The end ----------------------------------------------------------------------------------------------------

    def stop(self, effect: ef.StopEngine) -> None:
        """End the process and all that it left; always ends in EngineStopped."""
        self._spawn_other(self._stop((effect.pool_id, effect.incarnation)))

    async def _stop(self, key: tuple[str, int]) -> None:
        await self._end_step(key)
        worker = self._workers.pop(key, None)
        try:
            if worker is not None:
                worker.http.close()  # llama-server waits for its clients: the connections go first
                await self._stop_process(key, worker)
                await asyncio.to_thread(worker_records.remove, self._state_dir, *key)
        finally:
            self._post(ev.EngineStopped(*key))

    async def _stop_process(self, key: tuple[str, int], worker: Worker) -> None:
        stopped = await worker.process.stop(self._adapter(key[0]).plan_stop().steps)
        if stopped.leftovers:
            log.error("processes would not end", extra={"pool_id": key[0], "pids": list(stopped.leftovers)})

    async def _end_step(self, key: tuple[str, int]) -> None:
        """A spawn that is under way is let finish, so that its process is known; any other step is cut short."""
        step = self._steps.pop(key, None)
        if step is None or step.done():
            return
        if key in self._workers:
            step.cancel()
        await asyncio.wait([step])

    async def close(self) -> None:
        """Wait for what is under way; called once no worker runs any more."""
        tasks = [*self._others, *(step for step in self._steps.values() if not step.done())]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
