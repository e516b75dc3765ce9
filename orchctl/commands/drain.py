"""`orchctl drain`: let a pool finish what it has and give it nothing more."""

import sys
from typing import Annotated

import typer

from orchctl.client import Client
from orchctl.context import client_of
from orchctl.durations import duration_ms
from orchctl.exits import ExitCode, VerbError, usage
from orchctl.render import Output, OutputKind, Wait, show
from orchctl.spans import spoken
from orchctl.waiting import wait_for_pool
from supervisor.wire.pools import DrainRequest, PoolHealth


def drain(
    ctx: typer.Context,
    pool: Annotated[str, typer.Argument(metavar="POOL", help="The id of the pool.")],
    *,
    deadline: Annotated[str, typer.Option(metavar="TIME", help="What runs after this is ended.")] = "30s",
    wait: Wait = False,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="How long --wait waits.")] = "60s",
    yes: Annotated[bool, typer.Option("-y", "--yes", help="End running tasks at once without asking.")] = False,
    output: Output = OutputKind.TABLE,
) -> None:
    """Take a pool out of service.

    What runs may finish until the deadline, what waits stays waiting, nothing new starts.
    """
    client = client_of(ctx)
    request = DrainRequest(deadline_ms=duration_ms(deadline, "--deadline"))
    timeout_ms = duration_ms(timeout, "--timeout")
    if request.deadline_ms == 0 and not yes:
        _confirm(client, pool)
    change = client.drain(pool, request)
    if not wait:
        running = f"what runs has {spoken(request.deadline_ms)}" if request.deadline_ms else "what ran is ended"
        show(change, output, lambda: [f"pool {pool} is draining, {running}; undo it with `orchctl resume {pool}`"])
        return
    health = wait_for_pool(client, pool, is_drained, "to drain", timeout_ms)
    show(health, output, lambda: [f"pool {pool} is drained; undo it with `orchctl resume {pool}`"])


def is_drained(health: PoolHealth) -> bool:
    """Nothing runs and nothing will start."""
    return health.draining and health.metrics.slots_busy == 0


def _confirm(client: Client, pool: str) -> None:
    """Ask before running tasks are thrown away. Only a person at a terminal can be asked."""
    busy = client.pool(pool).metrics.slots_busy
    if not busy:
        return
    tasks = "1 task" if busy == 1 else f"{busy} tasks"
    if not sys.stdin.isatty():
        raise usage(f"a deadline of 0 ends {tasks} at once", "say `--yes`, or give them time with `--deadline 30s`")
    if not typer.confirm(f"End {tasks} on {pool} at once?", err=True):
        raise VerbError(ExitCode.FAILED, "nothing was changed", "give the tasks time with `--deadline 30s`")
