"""Tenants, keys, quotas, rates and turns for a host that was drawn without them: in two of three seeds.

By dice of its own, and by the callers' numbers: a seed's weather and workers are what they were without tenants.
"""

from random import Random

from msgspec import structs

from supervisor.core.plan import ClassBounds, HostPlan, PoolPlan, TenantPlan
from supervisor.wire.codes import QueueOrder

Host = tuple[tuple[PoolPlan, ...], HostPlan]

FREE = "tenant"
TENANTS = (FREE, "acme", "globex", "acme", "initech", FREE, "acme")
KEYS_PER_TENANT = 2
SALT = 0x7E2A27


def tenant_of(number: int) -> str:
    """The tenant of a caller; most have quotas, some have none."""
    return TENANTS[number % len(TENANTS)]


def client_of(number: int) -> str:
    """One of the keys of that tenant."""
    return f"{tenant_of(number)}-{number % KEYS_PER_TENANT}"


def with_tenants(seed: int, host: Host) -> Host:
    """The same host with quotas, and in some seeds with turns, rates and a known size of the KV cache."""
    dice = Random(seed ^ SALT)
    plans, bounds = host
    if dice.random() < 1 / 3:
        return host
    kv_bytes, order = dice.choice((0, 10, 1_000)), dice.choice(list(QueueOrder))
    rps, burst = dice.choice((None, 0.05, 0.5)), dice.choice((1.0, 2.0))
    tenants = {
        name: TenantPlan(
            concurrent_jobs=dice.choice((None, 2, 6)),
            waiting_tasks=dice.choice((None, 1, 4)),
            memory_bytes=dice.choice((None, 9_000, 2_000_000)),
            weight=dice.choice((1, 1, 3)),
        )
        for name in ("acme", "globex", "initech")
    }
    limited = tuple(
        structs.replace(
            plan,
            kv_bytes_per_token=kv_bytes,
            queue_order=order,
            classes={name: ClassBounds(each.capacity, rps, burst) for name, each in plan.classes.items()},
        )
        for plan in plans
    )
    return limited, structs.replace(bounds, tenants=tenants)
