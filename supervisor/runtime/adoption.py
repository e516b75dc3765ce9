"""Whether an engine that outlived its daemon may be taken over: by proof, or not at all (ORCH-3053).

1. The record is of this boot, and its pid and start time are those of a process that runs.
2. That process has inherited the mark of the recorded worker.
3. Its pool is configured, on the same engine and with the same model digest.
4. This configuration would launch the same: command line, environment, folder, devices; port and key aside. The files
   beside the model (drafts, projectors, adapters) are those that it was started with.
5. Its port answers to the worker's key and turns a stranger away. One that still loads answers nobody: it may go on,
   for its key is asked for again before it is Ready.
The first proof that fails is the cause, in one sentence. Ends nothing: see `found_engines`.
"""

import asyncio
from collections.abc import Mapping

from adapters.base import PlanError
from supervisor.runtime import worker_records
from supervisor.runtime.beside import find_changed, paths_beside
from supervisor.runtime.blueprint import PoolBlueprint
from supervisor.runtime.engine_http import EngineHttp
from supervisor.runtime.launch_digest import launch_digest
from supervisor.runtime.probes import ProbeError, prove_key
from supervisor.runtime.processes_adopt import carries_mark
from supervisor.runtime.processes_port import HOST
from supervisor.runtime.worker_records import WorkerRecord


async def find_flaw(record: WorkerRecord, blueprints: Mapping[str, PoolBlueprint], *, is_simulated: bool) -> str | None:
    """Why the recorded engine may not be adopted; None where every proof holds."""
    return (
        _flaw_of_process(record)
        or _flaw_of_launch(record, blueprints.get(record.pool_id), is_simulated=is_simulated)
        or await asyncio.to_thread(_flaw_of_files, record, blueprints[record.pool_id], is_simulated=is_simulated)
        or await _flaw_of_answers(record, blueprints[record.pool_id])
    )


def _flaw_of_process(record: WorkerRecord) -> str | None:
    if record.boot_id != worker_records.current_boot_id():
        return "it ran before the host was started again"
    if not worker_records.is_same_process(record):
        return "its process has ended"
    if not carries_mark(record.pid, record.mark):
        return "the process does not carry the mark of its worker"
    return None


def _flaw_of_launch(record: WorkerRecord, blueprint: PoolBlueprint | None, *, is_simulated: bool) -> str | None:
    if blueprint is None:
        return "its pool is not configured any more"
    if blueprint.plan.unplannable is not None or blueprint.adapter is None or record.engine != blueprint.plan.engine:
        return "its pool is configured for another engine"
    if record.model_digest != blueprint.plan.model_digest:
        return "its pool is configured with another model"
    try:
        digest = launch_digest(blueprint, record.devices, is_simulated=is_simulated)
    except PlanError as error:
        return f"the configuration would not launch it: {error}"
    return None if digest == record.launch_digest else "the configuration would launch it otherwise"


def _flaw_of_files(record: WorkerRecord, blueprint: PoolBlueprint, *, is_simulated: bool) -> str | None:
    changed = find_changed(paths_beside(blueprint, is_simulated=is_simulated), record.beside)
    return None if changed is None else f"a file beside its model was replaced since it was started: {changed}"


async def _flaw_of_answers(record: WorkerRecord, blueprint: PoolBlueprint) -> str | None:
    assert blueprint.adapter is not None
    http = EngineHttp(HOST, record.port, record.api_key)
    try:
        await prove_key(http, blueprint.adapter)
    except ProbeError as error:
        return str(error)
    finally:
        http.close()
    return None
