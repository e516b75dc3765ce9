"""Replies of a daemon with sensible values; a test names only what it is about."""

from typing import Any

import msgspec

from supervisor.wire.codes import Code, Engine
from supervisor.wire.errors import ErrorEnvelope
from supervisor.wire.pools import DeviceView, HostStatus, PoolHealth, PoolMetrics, StepStatus

GPU_UUID = "GPU-5a2c1c2e-0b1d-4f7e-9c55-1f0e7a3b9d10"


def metrics(**changes: Any) -> PoolMetrics:
    base = PoolMetrics(
        slots_total=4, slots_busy=1, waiting=3, tokens_per_s=58.24, tokens_out_total=9001, restarts_total=0
    )
    return msgspec.structs.replace(base, **changes)


def pool(pool_id: str = "small", **changes: Any) -> PoolHealth:
    base = PoolHealth(
        pool_id=pool_id,
        live=True,
        ready=True,
        draining=False,
        state="ready",
        engine=Engine.LLAMACPP,
        model_ref="smollm2-135m",
        ctx=2048,
        devices=[GPU_UUID],
        metrics=metrics(),
        steps=[
            StepStatus(name="model", state="passed", took_ms=12),
            StepStatus(name="process", state="passed", took_ms=40),
            StepStatus(name="self-test", state="passed", took_ms=310),
        ],
        since_ms=61_000,
        replica_id=f"{pool_id}/0",
        engine_version="b11434",
        model_digest="sha256:" + "ab" * 32,
        ctx_per_slot=2048,
        pid=4711,
    )
    return msgspec.structs.replace(base, **changes)


def broken_pool(pool_id: str = "large", **changes: Any) -> PoolHealth:
    return pool(
        pool_id,
        ready=False,
        live=False,
        state="backoff",
        model_ref="qwen-32b",
        cause="the engine ran out of GPU memory while it loaded",
        retry_in_ms=12_000,
        pid=None,
        metrics=metrics(slots_busy=0, waiting=0, tokens_per_s=0.0, restarts_total=5),
        steps=[
            StepStatus(name="model", state="passed", took_ms=12),
            StepStatus(name="process", state="failed", detail="exit code 1"),
            StepStatus(name="self-test", state="pending"),
        ],
        **changes,
    )


def device(**changes: Any) -> DeviceView:
    base = DeviceView(
        uuid=GPU_UUID,
        index=0,
        name="NVIDIA L4",
        vram_total_mib=23_034,
        vram_used_mib=6_144,
        vram_free_mib=16_890,
        utilization_percent=87,
        pools=["small"],
    )
    return msgspec.structs.replace(base, **changes)


def host(*pools: PoolHealth, **changes: Any) -> HostStatus:
    base = HostStatus(
        version="0.1.0",
        pid=4000,
        uptime_ms=11_520_000,
        state="running",
        simulated=None,
        gpu_cause=None,
        journal_writable=True,
        devices=[device()],
        pools=list(pools),
        replicasets=[],
    )
    return msgspec.structs.replace(base, **changes)


def refusal(code: Code = Code.INVALID_PARAMS, message: str = "This cannot be.", **changes: Any) -> ErrorEnvelope:
    base = ErrorEnvelope(code=code, message=message, retriable=False, correlation_id="c0ffee")
    return msgspec.structs.replace(base, **changes)
