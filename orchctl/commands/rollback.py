"""`orchctl rollback`: the revision before serves again."""

from typing import Annotated

import typer

from orchctl.context import client_of
from orchctl.durations import duration_ms
from orchctl.render import Output, OutputKind, Wait, show
from orchctl.rollout_waiting import show_revision


def rollback(
    ctx: typer.Context,
    pool: Annotated[str, typer.Argument(metavar="POOL", help="The id of the pool.")],
    *,
    wait: Wait = False,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="How long --wait waits.")] = "10m",
    output: Output = OutputKind.TABLE,
) -> None:
    """Let the revision before serve again.

    At once while it is still loaded, else as soon as it is loaded anew. Asking twice is asking once.
    """
    client = client_of(ctx)
    timeout_ms = duration_ms(timeout, "--timeout")
    started = client.change(pool, "rollback")
    if not wait:
        show(started, output, lambda: [f"pool {pool} goes back to revision {started.revision}"])
        return
    show_revision(client, started, timeout_ms, output)
