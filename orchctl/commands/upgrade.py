"""`orchctl upgrade`: the daemon replaces itself by the program that is installed now; engines and clients stay."""

import time
from typing import Annotated

import typer

from orchctl.client import Client
from orchctl.context import client_of
from orchctl.durations import duration_ms
from orchctl.exits import ExitCode, VerbError
from orchctl.progress import WaitingLine
from orchctl.render import Output, OutputKind, Wait, show
from orchctl.spans import spoken
from orchctl.terminal import err_screen
from supervisor.wire.upgrades import UpgradeRequest, UpgradeState, UpgradeStatus

LOOK_S = 0.2
LOG_OF_DAEMON = "see the daemon's log"


def upgrade(
    ctx: typer.Context,
    *,
    deadline: Annotated[str, typer.Option(metavar="TIME", help="What runs may end until then.")] = "30s",
    wait: Wait = False,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="How long --wait waits.")] = "5m",
    output: Output = OutputKind.TABLE,
) -> None:
    """Replace the running daemon by the installed program.

    The new program must load the configuration first. Engines, queue, streams and sockets stay. After the deadline
    strict tasks are cut and go on afterwards; where others still run, nothing is changed.
    """
    client = client_of(ctx)
    request = UpgradeRequest(deadline_ms=duration_ms(deadline, "--deadline"))
    timeout_ms = duration_ms(timeout, "--timeout")
    begun = client.upgrade(request)
    if not wait:
        show(begun, output, lambda: [f"the daemon comes to rest, for {spoken(request.deadline_ms)} at most"])
        return
    after = _wait_for_next_life(client, begun, timeout_ms)
    show(after, output, lambda: [f"the daemon was upgraded from {begun.version} to {after.version}"])


def _wait_for_next_life(client: Client, begun: UpgradeStatus, timeout_ms: int) -> UpgradeStatus:
    until_s = time.monotonic() + timeout_ms / 1_000
    status = begun
    with WaitingLine(err_screen(), lambda: f"waiting for the next daemon: {status.state}"):
        while status.life == begun.life:
            if status.state is UpgradeState.REFUSED:
                raise VerbError(ExitCode.TRY_LATER, f"the daemon was not upgraded: {status.cause}", LOG_OF_DAEMON)
            if time.monotonic() >= until_s:
                cause = f"the upgrade took longer than {spoken(timeout_ms)} ({status.state})"
                raise VerbError(ExitCode.FAILED, cause, LOG_OF_DAEMON)
            time.sleep(LOOK_S)
            status = client.upgrade_status()
    return status
