"""`orchctl rollout`: what is under way on a pool, and what its revisions were."""

from typing import Annotated

import typer

from orchctl.context import client_of
from orchctl.render import Output, OutputKind, show
from orchctl.rollout_text import history_lines, rollout_lines
from orchctl.terminal import out_screen

HELP = "Show the revisions of a pool, and what is under way."

Pool = Annotated[str, typer.Argument(metavar="POOL", help="The id of the pool.")]


def status(ctx: typer.Context, pool: Pool, *, output: Output = OutputKind.TABLE) -> None:
    """Show the revision that serves, and how far a rollout is."""
    page = client_of(ctx).rollout(pool)
    show(page, output, lambda: rollout_lines(page, out_screen()))


def history(ctx: typer.Context, pool: Pool, *, output: Output = OutputKind.TABLE) -> None:
    """Show what became of each revision, the newest first."""
    page = client_of(ctx).rollout(pool)
    show(page.history, output, lambda: history_lines(page.history, out_screen()))


def abort(ctx: typer.Context, pool: Pool, *, output: Output = OutputKind.TABLE) -> None:
    """Undo what is under way: the model that serves stays."""
    started = client_of(ctx).change(pool, "rollout/abort")
    show(started, output, lambda: [f"the rollout of {pool} is aborted"])


ACTIONS = {"status": status, "history": history, "abort": abort}
