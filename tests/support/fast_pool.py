"""A pool on the bench's engine in C, which costs next to nothing: for tests with thousands of tasks."""

from typing import Any

from bench.native import build_tools
from tests.support.pools import a_pool


def a_fast_pool(pool_id: str = "tiny", *, slots: int = 1, tick_ms: float = 1.0, **fields: Any) -> dict[str, Any]:
    """One pool whose tasks get a token every `tick_ms`, all slots together."""
    command = [str(build_tools().engine), "--port", "{port}", "--slots", str(slots), "--ctx", "512"]
    launch = {"command": [*command, "--tick-ms", str(tick_ms)]}
    timeouts = {"wall_ms": 600_000, "idle_ms": 60_000}
    values = {"slots": slots, "determinism": "best_effort", "launch": launch, "timeouts": timeouts}
    return {**a_pool(pool_id), **values, **fields}
