"""A pool that is never started: what a memory check of `make gpu-check` asks the core about."""

from supervisor.core.plan import ClassBounds, PoolPlan
from supervisor.wire.codes import Determinism, Engine, FullPolicy, Priority, Workload

MINUTE_MS = 60_000


def pretended_plan(uuid: str) -> PoolPlan:
    """One slot of a model that nobody has, on one GPU."""
    return PoolPlan(
        pool_id="gpu-check",
        engine=Engine.LLAMACPP,
        model_ref="pretended",
        model_refs=frozenset({"pretended"}),
        model_digest=None,
        quant=None,
        ctx=None,
        slots=1,
        tensor_split=None,
        sampler_profile_version="none",
        determinism=Determinism.BEST_EFFORT,
        is_batch_invariant=False,
        workloads=frozenset({Workload.COMPLETION}),
        devices=(uuid,),
        queue_capacity=1,
        queue_bytes_max=1,
        full_policy=FullPolicy.REJECT,
        classes={priority: ClassBounds(1) for priority in Priority},
        wall_ms=MINUTE_MS,
        idle_ms=MINUTE_MS,
        first_token_ms=None,
        disconnect_grace_ms=MINUTE_MS,
        load_timeout_ms=MINUTE_MS,
    )
