"""Which workers count the rates of their clients together (ORCH-3006): those that nobody can tell apart by asking.

A worker's *meter* is a name that it has from the day it is known. Another revision of a pool has that of the pool, so
that a switch or a canary gives no client another burst. Decides nothing of rates: that is `rates`.
"""

from collections.abc import Iterable

from msgspec import structs

from supervisor.core.plan import PoolPlan
from supervisor.core.replicas import Replica, SetKey


def find_meter(plan: PoolPlan, key: SetKey, known: Iterable[Replica]) -> str:
    """The meter of a new worker, among those that are known.

    1. Another revision of its pool that answers to one of its names has it.
    2. So has another pool that answers to one of its names, and differs in the model's digest at most.
    3. Otherwise it has its own: the kind of its set.
    """
    namesakes = [
        other
        for other in known
        if other.plan.engine == plan.engine and not other.plan.model_refs.isdisjoint(plan.model_refs)
    ]
    own = [other for other in namesakes if other.plan.public_id == plan.public_id]
    alike = [other for other in namesakes if _shape(other.set_key) == _shape(key)]
    return next((other.meter for other in (*own, *alike)), key.kind)


def _shape(key: SetKey) -> SetKey:
    return structs.replace(key, model_digest="", engine_version=None, variant=None, beside_digest="")
