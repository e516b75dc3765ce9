"""`orchctl canary`: a share of a pool's sessions for another model, and what becomes of it."""

from typing import Annotated

import typer
from msgspec import UNSET, UnsetType

from orchctl.context import client_of
from orchctl.durations import duration_ms
from orchctl.exits import usage
from orchctl.render import Output, OutputKind, Wait, show
from orchctl.rollout_text import rollout_lines
from orchctl.rollout_waiting import show_revision
from orchctl.terminal import out_screen
from supervisor.wire.rollouts import CanaryRequest, JudgeTerms, ShareRequest

HELP = "Give a share of a pool's sessions to another model, then promote it or take it back."

Pool = Annotated[str, typer.Argument(metavar="POOL", help="The id of the pool.")]
Percent = Annotated[float, typer.Option("--percent", metavar="N", help="Share of the sessions, 0 to 100.")]
Timeout = Annotated[str, typer.Option(metavar="TIME", help="How long --wait waits.")]


def start(  # noqa: PLR0913  (the options of a verb)
    ctx: typer.Context,
    pool: Pool,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The new model.")],
    *,
    percent: Percent = 10.0,
    auto: Annotated[bool, typer.Option("--auto", help="Promote it or take it back by its figures.")] = False,
    min_tasks: Annotated[int | None, typer.Option(metavar="N", help="Say nothing of fewer tasks.")] = None,
    promote_after: Annotated[int | None, typer.Option(metavar="N", help="Tasks after which it takes over.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check it, and change nothing.")] = False,
    wait: Wait = False,
    timeout: Timeout = "10m",
    output: Output = OutputKind.TABLE,
) -> None:
    """Start a canary beside the model that serves.

    A session stays on its side for as long as the share stands.
    """
    client = client_of(ctx)
    timeout_ms = duration_ms(timeout, "--timeout")
    judge = JudgeTerms(min_tasks=_or_unset(min_tasks), promote_after_tasks=_or_unset(promote_after))
    if not auto and (min_tasks is not None or promote_after is not None):
        raise usage("terms of a judgement without --auto judge nothing", "add `--auto`")
    request = CanaryRequest(
        new_model_ref=model, percent=_share(percent), auto=auto, judge=judge if auto else UNSET, dry_run=dry_run
    )
    started = client.change(pool, "canary", request)
    if dry_run:
        show(started, output, lambda: [f"pool {pool} would get revision {started.revision} with {model} as a canary"])
    elif not wait:
        watch = f"watch it with `orchctl canary status {pool}`"
        show(started, output, lambda: [f"the canary of {pool} is revision {started.revision}; {watch}"])
    else:
        show_revision(client, started, timeout_ms, output)


def status(ctx: typer.Context, pool: Pool, *, output: Output = OutputKind.TABLE) -> None:
    """Show how far the canary is, and its figures beside those of the model that serves."""
    page = client_of(ctx).rollout(pool)
    show(page, output, lambda: rollout_lines(page, out_screen()))


def share(ctx: typer.Context, pool: Pool, *, percent: Percent, output: Output = OutputKind.TABLE) -> None:
    """Give the canary another share. A share that grows moves nobody back."""
    started = client_of(ctx).change(pool, "rollout/share", ShareRequest(percent=_share(percent)))
    show(started, output, lambda: [f"the canary of {pool} now takes {percent:g} % of the sessions"])


def promote(ctx: typer.Context, pool: Pool, *, output: Output = OutputKind.TABLE) -> None:
    """Let the canary take over."""
    started = client_of(ctx).change(pool, "rollout/promote")
    undo = f"undo it with `orchctl rollback {pool}`"
    show(started, output, lambda: [f"revision {started.revision} serves {pool}; {undo}"])


def abort(ctx: typer.Context, pool: Pool, *, output: Output = OutputKind.TABLE) -> None:
    """Take the canary back. What it runs may finish."""
    started = client_of(ctx).change(pool, "rollout/abort")
    show(started, output, lambda: [f"the rollout of {pool} is aborted; the model that served it serves on"])


ACTIONS = {"start": start, "status": status, "share": share, "promote": promote, "abort": abort}


def _share(percent: float) -> float:
    if not 0 <= percent <= 100:
        raise usage("--percent is a share from 0 to 100", "give another one")
    return percent


def _or_unset(value: int | None) -> int | UnsetType:
    return UNSET if value is None else value
