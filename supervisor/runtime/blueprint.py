"""From the configuration to what the core plans with and what a worker is launched with. Pure, done once at start."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adapters import registry
from adapters.base import Adapter, LaunchSpec
from supervisor.config.model import Config
from supervisor.config.models import ModelArtifact
from supervisor.config.pool import PoolConfig
from supervisor.core.plan import ClassBounds, HostPlan, PoolPlan
from supervisor.wire.codes import Priority, Workload


@dataclass(frozen=True, slots=True)
class PoolBlueprint:
    """One pool: the core's plan, its adapter, its model file, and the part of the launch that never changes."""

    plan: PoolPlan
    adapter: Adapter | None
    artifact: ModelArtifact | None
    config: PoolConfig
    binary: str | None
    config_dir: Path

    def launch_spec(self, *, port: int, api_key: str, devices: tuple[str, ...], is_simulated: bool) -> LaunchSpec:
        """Everything that one process is started with. Only for pools that can be planned."""
        assert self.artifact is not None, f"{self.plan.pool_id} has no model file"
        launch = self.config.launch
        return LaunchSpec(
            pool_id=self.plan.pool_id,
            model_path=str(self.artifact.path),
            model_name=self.plan.pool_id,
            ctx=self.plan.ctx or 0,
            slots=self.plan.slots,
            port=port,
            api_key=api_key,
            devices=devices,
            tensor_split=self.config.tensor_split,
            threads=launch.threads,
            extra_args=launch.extra_args,
            env=dict(launch.env),
            command=launch.command,
            binary=self.binary,
            config_dir=str(self.config_dir),
            python=sys.executable,
            simulated=is_simulated,
        )


def draw_pools(config: Config, source: Path) -> Mapping[str, PoolBlueprint]:
    """The blueprints of all pools, by pool id."""
    return {pool.id: _draw(config, pool, source.parent) for pool in config.pools}


def draw_host(config: Config) -> HostPlan:
    """The bounds of the whole daemon."""
    retention = config.retention
    return HostPlan(
        finished_retention_ms=retention.finished_ms,
        finished_bytes_max=retention.finished_bytes_max,
        finished_ids_min=retention.ids_min,
    )


def _draw(config: Config, pool: PoolConfig, config_dir: Path) -> PoolBlueprint:
    adapter = registry.find(pool.engine)
    artifact = config.artifact(pool.model)
    plan = PoolPlan(
        pool_id=pool.id,
        engine=pool.engine,
        model_ref=pool.model,
        model_refs=config.model_refs(pool.model),
        model_digest=artifact.digest if artifact else None,
        quant=pool.quant,
        ctx=pool.ctx,
        slots=pool.slots,
        tensor_split=pool.tensor_split,
        sampler_profile_version=pool.sampler_profile_version,
        determinism=pool.determinism,
        is_batch_invariant=adapter.is_batch_invariant if adapter else True,
        workloads=frozenset({Workload.COMPLETION}),
        devices=pool.devices,
        queue_capacity=pool.queue.capacity,
        queue_bytes_max=pool.queue.bytes_max,
        full_policy=pool.queue.full_policy,
        classes={priority: ClassBounds(pool.limits_of(priority).queue_capacity) for priority in Priority},
        wall_ms=pool.timeouts.wall_ms,
        idle_ms=pool.timeouts.idle_ms,
        first_token_ms=pool.timeouts.first_token_ms,
        disconnect_grace_ms=config.grace_ms(pool),
        load_timeout_ms=pool.launch.load_timeout_ms,
        unplannable=_why_unplannable(pool, adapter, artifact),
    )
    return PoolBlueprint(plan, adapter, artifact, pool, config.binary(pool), config_dir.resolve())


def _why_unplannable(pool: PoolConfig, adapter: Adapter | None, artifact: ModelArtifact | None) -> str | None:
    if adapter is None:
        return f"this version has no adapter for engine {pool.engine}"
    if artifact is None:
        return f"model {pool.model} is not declared under `models:`"
    return None
