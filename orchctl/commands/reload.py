"""`orchctl reload`: take up the configuration file, or give a pool another model."""

from typing import Annotated

import typer
from msgspec import UNSET

from orchctl.client import Client
from orchctl.context import client_of
from orchctl.durations import duration_ms
from orchctl.exits import RefusedError, usage
from orchctl.render import Output, OutputKind, Wait, show
from orchctl.rollout_text import config_lines
from orchctl.rollout_waiting import show_revision, wait_for_revision
from orchctl.terminal import out_screen
from orchctl.waiting import wait_for_pool
from supervisor.wire.codes import Reason
from supervisor.wire.rollouts import ConfigReloaded, ConfigReloadRequest, ReloadRequest


def reload(  # noqa: PLR0913  (the options of a verb)
    ctx: typer.Context,
    pool: Annotated[str | None, typer.Argument(metavar="[POOL", help="The pool. Without it: the config.")] = None,
    model: Annotated[str | None, typer.Argument(metavar="MODEL]", help="Its new model.")] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    revert: Annotated[bool, typer.Option("--revert", help="Bring back the config before this one.")] = False,
    drain: Annotated[
        str | None, typer.Option(metavar="TIME", help="For what runs, where the old worker must go first.")
    ] = None,
    wait: Wait = False,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="How long --wait waits.")] = "10m",
    output: Output = OutputKind.TABLE,
) -> None:
    """Take up a changed config, or another model for a pool.

    The config is checked whole first, and only pools that differ are touched. A new model is made Ready beside the old
    one, which serves until then; one that fails changes nothing.
    """
    client = client_of(ctx)
    timeout_ms = duration_ms(timeout, "--timeout")
    if pool is None:
        _reload_config(client, ConfigReloadRequest(dry_run=dry_run, revert=revert), wait, timeout_ms, output)
        return
    if model is None:
        raise usage("the new model is missing", f"write `orchctl reload {pool} MODEL`")
    if revert:
        raise usage("--revert is for the config", f"bring back the model before with `orchctl rollback {pool}`")
    drain_ms = UNSET if drain is None else duration_ms(drain, "--drain")
    started = client.change(pool, "reload", ReloadRequest(new_model_ref=model, drain_ms=drain_ms, dry_run=dry_run))
    if dry_run:
        show(started, output, lambda: [f"pool {pool} would get revision {started.revision} with {model}"])
    elif not wait:
        watch = f"watch it with `orchctl rollout status {pool}`"
        show(started, output, lambda: [f"revision {started.revision} of {pool} is on its way; {watch}"])
    else:
        show_revision(client, started, timeout_ms, output)


def _reload_config(
    client: Client,
    request: ConfigReloadRequest,
    is_waiting: bool,  # noqa: FBT001  (an option of the verb)
    timeout_ms: int,
    output: OutputKind,
) -> None:
    try:
        reloaded = client.reload_config(request)
    except RefusedError as error:
        if error.envelope.reason != Reason.NOT_FOUND:
            raise
        raise RefusedError(error.envelope, "see what the file would change with `orchctl reload --dry-run`") from None
    if is_waiting and not reloaded.dry_run:
        _wait_for_pools(client, reloaded, timeout_ms)
    show(reloaded, output, lambda: config_lines(reloaded, out_screen()))


def _wait_for_pools(client: Client, reloaded: ConfigReloaded, timeout_ms: int) -> None:
    """Until every pool that was replaced or is new serves."""
    effects = {change.pool_id: change.effect for change in reloaded.changes if change.pool_id is not None}
    replaced = {change.pool_id for change in reloaded.changes if change.effect == "replace"}
    for pool_id, effect in effects.items():
        if pool_id in replaced:
            page = client.rollout(pool_id)
            if page.rollout is not None:
                wait_for_revision(client, pool_id, page.rollout.to_revision, timeout_ms)
        elif effect == "new_pool":
            wait_for_pool(client, pool_id, lambda health: health.ready, "to be ready", timeout_ms)
