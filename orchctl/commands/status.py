"""`orchctl status`: the host and its pools, or one pool and its way to Ready."""

from collections.abc import Sequence
from typing import Annotated

import typer

from orchctl.client import Client
from orchctl.context import client_of
from orchctl.durations import duration_ms
from orchctl.exits import usage
from orchctl.render import Output, OutputKind, json_line, print_document, show, yaml_text
from orchctl.status_text import host_page, pool_page
from orchctl.terminal import Screen, out_screen
from orchctl.watching import painter, repeat
from supervisor.wire.pools import HostStatus, PoolHealth

INTERVAL_MS_MIN = 100


def status(
    ctx: typer.Context,
    pool: Annotated[str | None, typer.Argument(metavar="[POOL]", help="One pool, with its steps.")] = None,
    *,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Go on until Ctrl-C.")] = False,
    interval: Annotated[str, typer.Option(metavar="TIME", help="Between two looks of --watch.")] = "1s",
    output: Output = OutputKind.TABLE,
) -> None:
    """Show the pools of this host.

    State, cause, device, slots, queue and speed; for one pool also its steps on the way to Ready.
    """
    client = client_of(ctx)
    interval_ms = duration_ms(interval, "--interval")
    if interval_ms < INTERVAL_MS_MIN:
        raise usage(f"--interval is at least {INTERVAL_MS_MIN}ms", "give a longer time")
    if not watch:
        reply = _look(client, pool)
        show(reply, output, lambda: _page(reply, out_screen(), output))
    elif output is OutputKind.JSON:
        repeat(lambda: print_document(json_line(_look(client, pool))), interval_ms)
    elif output is OutputKind.YAML:
        repeat(lambda: print_document(f"---\n{yaml_text(_look(client, pool))}"), interval_ms)
    else:
        repeat(painter(lambda screen: _page(_look(client, pool), screen, output)), interval_ms)


def _look(client: Client, pool: str | None) -> HostStatus | PoolHealth:
    return client.status() if pool is None else client.pool(pool)


def _page(reply: HostStatus | PoolHealth, screen: Screen, output: OutputKind) -> Sequence[str]:
    if isinstance(reply, PoolHealth):
        return pool_page(reply, screen)
    return host_page(reply, screen, is_wide=output is OutputKind.WIDE)
