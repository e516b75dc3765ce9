"""Rules between pools: ids are unique, and pools that form one replica set share one queue and so its policy."""

from collections.abc import Mapping, Sequence

from supervisor.config.fields import ELIDED_DIGEST, Finding
from supervisor.config.models import ModelFile, artifact_of
from supervisor.config.pool import PoolConfig
from supervisor.wire.codes import Priority

ReplicaSetKey = tuple[str, str, str | None, int | None, str]


def find_duplicate_ids(pools: Sequence[PoolConfig]) -> list[Finding]:
    """Every pool whose id an earlier one already has."""
    ids = [pool.id for pool in pools]
    return [
        Finding(("pools", index, "id"), f"the id {pool_id} is already used by pool {ids.index(pool_id)}")
        for index, pool_id in enumerate(ids)
        if pool_id in ids[:index]
    ]


def find_disagreements(pools: Sequence[PoolConfig], models: Mapping[str, ModelFile]) -> list[Finding]:
    """Pools that differ from the first member of their replica set (ORCH-3007) in what the set has only once.

    The engine version belongs to the key too, and is known only once the engines run.
    """
    firsts: dict[ReplicaSetKey, PoolConfig] = {}
    findings: list[Finding] = []
    for index, pool in enumerate(pools):
        if pool.model == ELIDED_DIGEST:
            continue
        first = firsts.setdefault(_replica_set_key(pool, models), pool)
        findings += [
            Finding(("pools", index, *loc), f"must be the same as in pool {first.id}: they form one replica set")
            for loc in _differences(first, pool)
        ]
    return findings


def _replica_set_key(pool: PoolConfig, models: Mapping[str, ModelFile]) -> ReplicaSetKey:
    artifact = artifact_of(models, pool.model)
    model = artifact.digest if artifact is not None else pool.model
    return (pool.engine, model, pool.quant, pool.ctx, pool.sampler_profile_version)


def _differences(first: PoolConfig, pool: PoolConfig) -> list[tuple[str, ...]]:
    """The keys that differ. A task's determinism is settled before its replica is chosen, so it belongs here too."""
    differences: list[tuple[str, ...]] = []
    if first.queue.full_policy != pool.queue.full_policy:
        differences.append(("queue", "full_policy"))
    if first.queue.order != pool.queue.order:
        differences.append(("queue", "order"))
    if _declared(first) != _declared(pool):
        differences.append(("admission", "priorities"))
    if set(first.workloads) != set(pool.workloads):
        differences.append(("workloads",))
    if first.determinism != pool.determinism:
        differences.append(("determinism",))
    return differences


def _declared(pool: PoolConfig) -> dict[Priority, tuple[int | None, float | None, float | None]]:
    """The limits as written, whatever their order; a class that says nothing is as good as absent."""
    limits = {
        entry.name: (entry.queue_capacity, entry.rate_limit_rps, entry.burst)
        for entry in pool.admission.priorities or ()
    }
    return {priority: limits.get(priority, (None, None, None)) for priority in Priority}
