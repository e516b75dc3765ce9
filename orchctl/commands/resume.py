"""`orchctl resume`: undo a drain."""

from typing import Annotated

import typer

from orchctl.context import client_of
from orchctl.durations import duration_ms
from orchctl.render import Output, OutputKind, Wait, show
from orchctl.waiting import wait_for_pool
from supervisor.wire.pools import PoolHealth


def resume(
    ctx: typer.Context,
    pool: Annotated[str, typer.Argument(metavar="POOL", help="The id of the pool.")],
    *,
    wait: Wait = False,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="How long --wait waits.")] = "60s",
    output: Output = OutputKind.TABLE,
) -> None:
    """Put a pool back into service."""
    client = client_of(ctx)
    timeout_ms = duration_ms(timeout, "--timeout")
    change = client.resume(pool)
    if not wait:
        show(change, output, lambda: [f"pool {pool} is back; watch it with `orchctl status {pool}`"])
        return
    health = wait_for_pool(client, pool, is_serving, "to be ready", timeout_ms)
    show(health, output, lambda: [f"pool {pool} is ready"])


def is_serving(health: PoolHealth) -> bool:
    """It takes tasks."""
    return health.ready and not health.draining
