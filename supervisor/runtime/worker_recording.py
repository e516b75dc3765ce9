"""Leaves word of an engine that was just started, before it may serve, for a daemon that finds it running.

An engine that crashes in the moment before has no record; it is then found by its mark and ended.
"""

from collections.abc import Mapping
from pathlib import Path

from supervisor.runtime import worker_records
from supervisor.runtime.blueprint import PoolBlueprint
from supervisor.runtime.launch_digest import launch_digest
from supervisor.runtime.private_files import UnsafeStateError
from supervisor.runtime.processes import EngineProcess
from supervisor.runtime.processes_env import SpawnError, SpawnTrouble
from supervisor.runtime.worker_records import WorkerRecord


def draw_record(  # noqa: PLR0913  (each is one fact of the record)
    incarnation: int,
    process: EngineProcess,
    blueprint: PoolBlueprint,
    devices: tuple[str, ...],
    *,
    port: int,
    api_key: str,
    model_file: tuple[int, int, int, int] | None,
    beside: Mapping[tuple[int, int, int, int], str],
    is_simulated: bool,
) -> WorkerRecord:
    """What is to be known of the process. Raises PlanError."""
    return WorkerRecord(
        pool_id=blueprint.plan.pool_id,
        incarnation=incarnation,
        pid=process.pid,
        start_ticks=process.start_ticks,
        boot_id=worker_records.current_boot_id(),
        port=port,
        api_key=api_key,
        mark=process.mark,
        engine=blueprint.plan.engine,
        devices=devices,
        model_digest=blueprint.plan.model_digest or "",
        model_file=model_file,
        beside=tuple(beside),
        beside_sha256=tuple(beside.values()),
        launch_digest=launch_digest(blueprint, devices, is_simulated=is_simulated),
    )


def store_record(state_dir: Path, record: WorkerRecord) -> None:
    """Put it on disk. Blocks for an fsync.

    Raises:
        SpawnError: it is not stored; an engine that nobody could find again must not serve.
    """
    try:
        worker_records.write(state_dir, record)
    except (OSError, UnsafeStateError) as error:
        cause = "the state folder cannot be trusted" if isinstance(error, UnsafeStateError) else error.strerror
        raise SpawnError(SpawnTrouble.OTHER, f"the engine cannot be recorded: {cause}") from error
