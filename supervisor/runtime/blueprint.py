"""From the configuration to what the core plans with and what a worker is launched with. Pure.

A revision of a pool is drawn as the pool itself, with the model and under the key that the rollout names.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from msgspec import structs

from adapters import base, registry
from adapters.base import Adapter, LaunchSpec
from supervisor.config.model import Config
from supervisor.config.models import DIGEST_PREFIX, ModelArtifact
from supervisor.config.pool import ClassLimits, PoolConfig
from supervisor.config.pool_digest import digest_pool
from supervisor.config.tenants import TenantConfig
from supervisor.core.plan import ClassBounds, HostPlan, PoolPlan, TenantPlan
from supervisor.wire.codes import Priority


@dataclass(frozen=True, slots=True)
class PoolBlueprint:
    """One pool: the core's plan, its adapter, its model file, and the part of the launch that never changes."""

    plan: PoolPlan
    adapter: Adapter | None
    artifact: ModelArtifact | None
    config: PoolConfig
    binary: str | None
    config_dir: Path

    @property
    def asked_of(self) -> frozenset[base.Workload]:
        """What the pool does, in the adapters' own words."""
        return frozenset(base.Workload(workload) for workload in self.config.workloads)

    def launch_spec(self, *, port: int, api_key: str, devices: tuple[str, ...], is_simulated: bool) -> LaunchSpec:
        """Everything that one process is started with. Only for pools that can be planned."""
        assert self.artifact is not None, f"{self.plan.pool_id} has no model file"
        launch = self.config.launch
        return LaunchSpec(
            pool_id=self.plan.public_id,
            model_path=str(self.artifact.path),
            model_name=self.plan.public_id,
            ctx=self.plan.ctx or 0,
            slots=self.plan.slots,
            port=port,
            api_key=api_key,
            devices=devices,
            tensor_split=self.config.tensor_split or _equal_split(len(devices)),
            threads=launch.threads,
            extra_args=launch.extra_args,
            env=dict(launch.env),
            command=launch.command,
            binary=self.binary,
            config_dir=str(self.config_dir),
            python=sys.executable,
            simulated=is_simulated,
            workloads=self.asked_of,
        )


def _equal_split(count: int) -> tuple[float, ...] | None:
    """Equal GPUs take equal parts, said aloud: by itself an engine would go by what is free, and differ each time."""
    return tuple(round(1 / count, 6) for _ in range(count)) if count > 1 else None


def draw_pools(
    config: Config, source: Path, kv_bytes_per_token: Callable[[Path], int] = lambda _: 0
) -> Mapping[str, PoolBlueprint]:
    """The blueprints of all pools, by pool id. `kv_bytes_per_token` says it of a model file, 0 where nobody knows."""
    return {
        pool.id: draw_revision(config, pool, pool.id, pool.model, source, kv_bytes_per_token) for pool in config.pools
    }


def draw_revision(
    config: Config,
    pool: PoolConfig,
    key: str,
    model_ref: str,
    source: Path,
    kv_bytes_per_token: Callable[[Path], int] = lambda _: 0,
) -> PoolBlueprint:
    """The blueprint of one revision of a pool: worker `key` with `model_ref` in place of the pool's own model.

    It answers to all names of its model, and to the pool's own where that is a name: a digest means one model only.
    """
    alias = frozenset() if pool.model.startswith(DIGEST_PREFIX) else frozenset({pool.model})
    own = pool.model_copy(update={"model": model_ref})
    drawn = _draw(config, own, source.parent, kv_bytes_per_token)
    plan = structs.replace(
        drawn.plan,
        pool_id=key,
        model_refs=drawn.plan.model_refs | alias,
        config_digest=digest_pool(config, pool),
    )
    return replace(drawn, plan=plan)


def draw_host(config: Config) -> HostPlan:
    """The bounds of the whole daemon."""
    retention = config.retention
    return HostPlan(
        finished_retention_ms=retention.finished_ms,
        finished_bytes_max=retention.finished_bytes_max,
        finished_ids_min=retention.ids_min,
        tenants={name: _draw_tenant(tenant) for name, tenant in config.tenants.items()},
        session_ttl_ms=config.sessions.ttl_ms,
        session_turns_max=config.sessions.turns_max,
        sessions_max=config.sessions.max,
        lease_devices_max=config.leases.devices_max,
        keep_previous_ms=config.rollout.keep_previous_ms,
    )


def _draw_tenant(tenant: TenantConfig) -> TenantPlan:
    quota = tenant.quota
    return TenantPlan(
        concurrent_jobs=quota.concurrent_jobs,
        waiting_tasks=quota.waiting_tasks,
        memory_bytes=quota.memory_bytes,
        weight=tenant.weight,
    )


def _draw(
    config: Config, pool: PoolConfig, config_dir: Path, kv_bytes_per_token: Callable[[Path], int]
) -> PoolBlueprint:
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
        can_pin_slots=adapter.can_pin_slots if adapter else False,
        workloads=frozenset(pool.workloads),
        devices=pool.devices,
        queue_capacity=pool.queue.capacity,
        queue_bytes_max=pool.queue.bytes_max,
        full_policy=pool.queue.full_policy,
        queue_order=pool.queue.order,
        probe_every_ms=pool.probe.idle_every_ms,
        probe_within_ms=pool.probe.within_ms,
        classes={priority: _bounds(pool.limits_of(priority)) for priority in Priority},
        wall_ms=pool.timeouts.wall_ms,
        idle_ms=pool.timeouts.idle_ms,
        first_token_ms=pool.timeouts.first_token_ms,
        disconnect_grace_ms=config.grace_ms(pool),
        load_timeout_ms=pool.launch.load_timeout_ms,
        kv_bytes_per_token=kv_bytes_per_token(artifact.path) if artifact else 0,
        unplannable=_why_unplannable(pool, adapter, artifact),
    )
    return PoolBlueprint(plan, adapter, artifact, pool, config.binary(pool), config_dir.resolve())


def _bounds(limits: ClassLimits) -> ClassBounds:
    return ClassBounds(limits.queue_capacity, limits.rate_limit_rps, limits.burst or 1.0)


def _why_unplannable(pool: PoolConfig, adapter: Adapter | None, artifact: ModelArtifact | None) -> str | None:
    if adapter is None:
        return f"this version has no adapter for engine {pool.engine}"
    if missing := {*map(str, pool.workloads)} - {*map(str, adapter.workloads)}:
        return f"engine {pool.engine} does no {min(missing)}"
    if artifact is None:
        return f"model {pool.model} is not declared under `models:`"
    return None
