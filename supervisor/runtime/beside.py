"""The files beside its model that a pool's engine would load: draft models, projectors, adapters. Reads none of them.

The configuration names no digest for them. So the one that a worker began with is part of its replica set and of its
record: workers that loaded other files never share a set, and an engine is not adopted past a file that was replaced.
"""

import os
from pathlib import Path

from adapters.base import LaunchPlan, PlanError
from adapters.llamacpp_beside import files_beside
from supervisor.runtime.blueprint import PoolBlueprint
from supervisor.store.parts import shard_names
from supervisor.wire.codes import Engine

BESIDE_MAX = 32
_ANY_PORT = 1
_ANY_KEY = "key"

Identity = tuple[int, int, int, int]
"""Device, inode, size, time of the last change in ns."""


def plan_of(blueprint: PoolBlueprint, *, is_simulated: bool) -> LaunchPlan | None:
    """What it would be launched with, devices by number; None where that cannot be planned."""
    if blueprint.adapter is None or blueprint.artifact is None:
        return None
    devices = tuple(str(at) for at in range(len(blueprint.plan.devices)))
    spec = blueprint.launch_spec(port=_ANY_PORT, api_key=_ANY_KEY, devices=devices, is_simulated=is_simulated)
    try:
        return blueprint.adapter.plan_launch(spec)
    except PlanError:
        return None


def paths_beside(blueprint: PoolBlueprint, *, is_simulated: bool) -> tuple[Path, ...]:
    """Where they lie: a relative name counts from the folder of the config, in which the engine is started."""
    plan = plan_of(blueprint, is_simulated=is_simulated)
    if plan is None or blueprint.plan.engine is not Engine.LLAMACPP:
        return ()
    paths = (blueprint.config_dir / name for name in files_beside(plan.argv, plan.env))
    return tuple(path.with_name(shard) for path in paths for shard in shard_names(path.name))


def find_changed(paths: tuple[Path, ...], then: tuple[Identity, ...]) -> str | None:
    """The name of one that is none of the files that it was started with; None where all are. Blocks."""
    for path in paths:
        try:
            if identity_of(path.stat()) not in then:
                return path.name
        except OSError:
            return path.name
    return None


def identity_of(status: os.stat_result) -> Identity:
    """Which file it is, and in which state."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)
