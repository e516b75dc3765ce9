"""`orchctl cancel`: end a task, waiting or running."""

from typing import Annotated

import typer
from msgspec import Struct

from orchctl.asking import task_id_of
from orchctl.context import client_of
from orchctl.render import Output, OutputKind, show


class Canceled(Struct, kw_only=True):
    """What `-o json` prints: `tokens_emitted` frames are all that any stream of the task will ever show."""

    task_id: str
    tokens_emitted: int


def cancel(
    ctx: typer.Context,
    task_id: Annotated[str, typer.Argument(metavar="TASK_ID", help="The id that `orchctl submit` printed.")],
    output: Output = OutputKind.TABLE,
) -> None:
    """End a task.

    Nothing more of it is computed. A task that is already finished stays as it is.
    """
    wanted = task_id_of(task_id, "TASK_ID")
    emitted = client_of(ctx).cancel(wanted)
    canceled = Canceled(task_id=wanted, tokens_emitted=emitted)
    show(canceled, output, lambda: [f"task {wanted} is cancelled; it had sent {emitted} tokens"])
