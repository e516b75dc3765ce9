"""What is done to workers: verify, spawn, await, inspect, test, stop. Each ends in exactly one event.

A worker is known here by pool and incarnation: its process, its HTTP client, its key. Which step follows is the core's
business; a step that fails, also by a bug of ours, is reported as failed.
"""

import asyncio
import logging
import os
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from adapters.base import PlanError
from supervisor.config.launch import Numa
from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.plan import public_id_of
from supervisor.runtime import probes, residency, worker_records
from supervisor.runtime.beside import Identity, paths_beside
from supervisor.runtime.blueprint import PoolBlueprint
from supervisor.runtime.cgroups import GroupWish
from supervisor.runtime.engine_http import EngineHttp
from supervisor.runtime.found_engines import FoundEngines
from supervisor.runtime.gpus import GpuSource
from supervisor.runtime.model_files import ModelFileError
from supervisor.runtime.needs_reader import NeedsReader
from supervisor.runtime.numa import near
from supervisor.runtime.probes import ProbeError
from supervisor.runtime.processes import EngineProcess, Processes
from supervisor.runtime.processes_env import SpawnError, SpawnOrder, SpawnTrouble
from supervisor.runtime.processes_port import HOST, pick_port
from supervisor.runtime.revision_logs import keep_newest_revisions
from supervisor.runtime.room import RoomError, measure
from supervisor.runtime.self_test import ANSWER_S, SLOT_IDLE_S, self_test
from supervisor.runtime.serving_hands import ServingHands, Worker
from supervisor.runtime.side_thread import NoThreadError
from supervisor.runtime.worker_exits import Ended, read_exit_cause
from supervisor.runtime.worker_recording import draw_record, store_record
from supervisor.store.digests import model_digest

log = logging.getLogger(__name__)

KEY_BYTES = 32
PORTS_REMEMBERED = 64
HEALTH_SLACK_S = 1.0
"""The core's own deadline for loading fires first."""


_StartEffect = ef.VerifyModel | ef.MeasureRoom | ef.SpawnEngine | ef.AdoptEngine
_StepEffect = _StartEffect | ef.AwaitHealth | ef.InspectEngine | ef.RunSelfTest


class WorkerHands(ServingHands):
    """Performs the effects about workers. `busy` gives the runs of a pool that the core counts as running."""

    def __init__(  # noqa: PLR0913  (each is one thing that the hands touch)
        self,
        blueprints: Mapping[str, PoolBlueprint],
        post: Callable[[ev.Event], None],
        processes: Processes,
        busy: Callable[[str], int],
        gpus: GpuSource,
        found: FoundEngines,
        *,
        state_dir: Path,
        log_dir: Path,
        needs: NeedsReader,
        is_simulated: bool,
    ) -> None:
        super().__init__(blueprints, post, busy, gpus, log_dir=log_dir, is_simulated=is_simulated)
        self._processes = processes
        self._found = found
        self._state_dir = state_dir
        self._needs = needs
        self._beside_seen: dict[str, str] = {}
        self._ports_given: deque[int] = deque(maxlen=PORTS_REMEMBERED)
        self._steps: dict[tuple[str, int], asyncio.Task[None]] = {}

    def forget(self, key: str) -> None:
        """A revision is gone for good; the logs of the newest of its kind are kept."""
        self._beside_seen.pop(key, None)
        self._models.release_all(key)  # of one that never came to a process, and so was never stopped
        self._spawn_other(asyncio.to_thread(keep_newest_revisions, self._log_dir, public_id_of(key)))

    # Steps ------------------------------------------------------------------------------------------------------

    def _begin(self, effect: _StepEffect, step: Awaitable[ev.Event]) -> None:
        """Run one step of a worker as a task that ends in its event, also when it fails."""
        key = (effect.pool_id, effect.incarnation)

        async def run() -> None:
            try:
                event = await step
            except (ProbeError, ModelFileError, PlanError, RoomError, SpawnError) as error:
                event = ev.StepFailed(*key, cause=str(error))
            except (OSError, NoThreadError) as error:  # the host is short of something: no bug
                event = ev.StepFailed(*key, cause=f"the host did not let the daemon go on: {error}")
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
            found = self._found.find(effect.pool_id)
            if found is not None and found.model_file is not None:
                self._models.trust(found.model_file, found.model_digest)
            if found is not None:
                for identity, sha256 in zip(found.beside, found.beside_sha256, strict=False):
                    self._models.trust(identity, sha256)
            key = (effect.pool_id, effect.incarnation)
            beside = paths_beside(self._blueprints[effect.pool_id], is_simulated=self._is_simulated)
            digest = await self._models.verify(artifact, key, beside)
            return ev.ModelVerified(*key, digest, self._note_beside(effect.pool_id, self._models.beside(key)))

        self._begin(effect, step())

    def _note_beside(self, pool_id: str, beside: Mapping[Identity, str]) -> str:
        """The digest of the files beside a model. No configuration says what it should be: a change is told aloud."""
        digest = model_digest((f"{at}", sha256) for at, sha256 in enumerate(beside.values())) if beside else ""
        was = self._beside_seen.get(pool_id, digest)
        if was != digest:
            log.warning("files beside a model changed", extra={"pool_id": pool_id, "was": was, "is": digest})
        self._beside_seen[pool_id] = digest
        return digest

    def measure_room(self, effect: ef.MeasureRoom) -> None:
        """See what the worker needs and what is free."""
        blueprint = self._blueprints[effect.pool_id]

        async def step() -> ev.Event:
            await self._found.wait_ended()  # what they hold is not free yet
            need = await asyncio.to_thread(self._needs.need_of, blueprint)
            key = (effect.pool_id, effect.incarnation)
            return await measure(key, need, effect.devices, self._gpus, self.engine_pids)

        self._begin(effect, step())

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
            group=await self._wish(pool_id, effect.devices),
        )
        process = await self._processes.spawn(order, lambda *_: self._note_exit(key, process))
        blueprint = self._blueprints[pool_id]
        record = draw_record(
            effect.incarnation,
            process,
            blueprint,
            effect.devices,
            port=port,
            api_key=api_key,
            model_file=self._models.identity(blueprint.artifact.path) if blueprint.artifact else None,
            beside=self._models.beside(key),
            is_simulated=self._is_simulated,
        )
        try:
            await asyncio.to_thread(store_record, self._state_dir, record)
        except SpawnError:
            await process.stop()
            raise
        self._workers[key] = Worker(process, EngineHttp(HOST, port, api_key), record, is_adopted=False)
        return ev.EngineSpawned(*key, pid=process.pid, port=port)

    async def _wish(self, pool_id: str, devices: tuple[str, ...]) -> GroupWish:
        """What the worker may take of the host, and the processors next to its GPUs (ORCH-3013)."""
        launch = self._blueprints[pool_id].config.launch
        pinned = frozenset[int]()
        if launch.numa is Numa.AUTO and not self._is_simulated:
            found = await self._gpus.inventory()
            cpus = {each.uuid: each.place.cpus for each in found.devices}
            pinned = near((cpus.get(uuid) for uuid in devices), allowed=frozenset(os.sched_getaffinity(0)))
        return GroupWish(launch.memory_max, launch.cpus, pinned)

    def adopt(self, effect: ef.AdoptEngine) -> None:
        """Take over the engine that was found running."""

        async def step() -> ev.Event:
            key, record = (effect.pool_id, effect.incarnation), self._found.take(effect.pool_id)
            if record is None:
                raise SpawnError(SpawnTrouble.OTHER, "the engine that was found running is gone")
            process = self._processes.adopt(
                record.pid, record.start_ticks, record.mark, lambda *_: self._note_exit(key, process)
            )
            self._workers[key] = Worker(process, EngineHttp(HOST, record.port, record.api_key), record, is_adopted=True)
            log.info("an engine of an earlier daemon is adopted", extra={"pool_id": key[0], "pid": record.pid})
            return ev.EngineSpawned(*key, pid=record.pid, port=record.port)

        self._begin(effect, step())

    def end_found(self, effect: ef.EndFoundEngine) -> None:
        """End the engine that was found running."""
        self._found.end(effect.pool_id)

    def _pick_port(self) -> int:
        """A port that no worker of ours has, nor was given and has not bound yet: two pools may spawn at once."""
        port = pick_port(avoid={*(worker.record.port for worker in self._workers.values()), *self._ports_given})
        self._ports_given.append(port)
        return port

    def _note_exit(self, key: tuple[str, int], process: EngineProcess) -> None:
        """The process is gone; say why, as far as that can be proved."""
        self._spawn_other(self._explain_exit(key, process))

    async def _explain_exit(self, key: tuple[str, int], process: EngineProcess) -> None:
        worker = self._workers.get(key)
        ended = Ended(
            *key,
            pid=process.pid,
            start_ticks=process.start_ticks,
            run=f"{key[0]}/{worker.record.incarnation if worker else key[1]} {process.mark}",
            log_path=self.log_path(key[0]),
            returncode=process.returncode,
            oom_kills=process.oom_kills,
            is_tainted=worker.is_tainted if worker else False,
        )
        if key[0] in self._blueprints:  # of a revision that is gone for good nobody wants to know
            self._post(await read_exit_cause(ended, self._adapter(key[0])))

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
            if worker.is_adopted:
                await self._require_idle(worker, effect.pool_id)
            await self._prove_model(effect, worker.process.pid)
            await self._prove_residency(effect, worker)
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

    async def _prove_residency(self, effect: ef.RunSelfTest, worker: Worker) -> None:
        """All of the model on the GPUs of its mask, and nothing anywhere else (ORCH-3018)."""
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        key = (effect.pool_id, effect.incarnation)
        found = await self._look_first(key, worker)
        if not found.passed:
            raise ProbeError(f"{residency.STEP}: {found.detail}")
        took_ms = (loop.time() - begin_s) * 1000
        is_degraded = not (found.is_proved or self._is_simulated)
        self._post(ev.StepPassed(*key, residency.STEP, took_ms, found.detail, is_degraded))

    async def _require_idle(self, worker: Worker, pool_id: str) -> None:
        """What an earlier daemon began on it was over when its connections closed."""
        if not await probes.wait_slot_idle(worker.http, self._adapter(pool_id), None, SLOT_IDLE_S):
            raise ProbeError("the adopted engine still works on what an earlier daemon began")

    async def _prove_model(self, effect: ef.RunSelfTest, pid: int) -> None:
        """The engine opened its model by name: see that it is the file that was verified (ORCH-3037)."""
        started_s = asyncio.get_running_loop().time()
        proof = await self._models.prove_loaded((effect.pool_id, effect.incarnation), pid)
        took_ms = (asyncio.get_running_loop().time() - started_s) * 1000
        self._post(ev.StepPassed(effect.pool_id, effect.incarnation, "model in use", took_ms, proof))

    def _worker(self, effect: ef.AwaitHealth | ef.InspectEngine | ef.RunSelfTest) -> Worker:
        worker = self._workers.get((effect.pool_id, effect.incarnation))
        if worker is None:
            raise ProbeError("the process is gone")
        return worker

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
                record = worker.record
                await asyncio.to_thread(worker_records.remove, self._state_dir, record.pool_id, record.incarnation)
        finally:
            self._models.release(key)
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

    def disconnect(self) -> None:
        """Close the connections to the engines, which go on with free slots, for the next daemon."""
        for worker in self._workers.values():
            worker.http.close()

    async def close(self) -> None:
        """Wait for what is under way; called once no worker runs any more, or none is to be stopped."""
        tasks = [*self._others, *(step for step in self._steps.values() if not step.done())]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
