"""`orchctl plan`: what each pool needs of memory, what is free, what fits and what would wait."""

from pathlib import Path
from typing import Annotated

import typer
from msgspec import UNSET

from orchctl.context import client_of
from orchctl.exits import ExitCode, VerbError, usage
from orchctl.offline_plan import plan_offline
from orchctl.outlook_text import outlook_page
from orchctl.plan_text import plan_page
from orchctl.render import Output, OutputKind, show
from orchctl.terminal import out_screen
from supervisor.wire.outlook import ChangeOutlook, OutlookRequest
from supervisor.wire.plan import MemoryPlan

_LATER = ("waits", "fails", "returns")


def plan(
    ctx: typer.Context,
    what: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE | POOL MODEL]", help="With --reload or --canary: of what.")
    ] = None,
    *,
    reload: Annotated[
        bool, typer.Option("--reload", help="What a reload would do: of the config, or a model.")
    ] = False,
    canary: Annotated[bool, typer.Option("--canary", help="What a canary would do.")] = False,
    revert: Annotated[bool, typer.Option("--revert", help="With --reload: of the config before this one.")] = False,
    config: Annotated[
        Path | None, typer.Option("-c", "--config", metavar="FILE", readable=False, help="A config, without a daemon.")
    ] = None,
    simulate_gpus: Annotated[
        str | None, typer.Option(metavar="NxSIZE", help="With --config: pretend to have GPUs, as in 2x24GiB.")
    ] = None,
    output: Output = OutputKind.TABLE,
) -> None:
    """Show what fits into the memory of the GPUs.

    Asks the daemon, or plans a config file that no daemon runs. With --reload or --canary: what that change would do.
    Exit 75 where a pool would wait, 78 where one can never work.
    """
    if reload or canary or revert or what:
        if config is not None or simulate_gpus is not None:
            raise usage("a change is planned by the daemon that would make it", "leave --config out")
        request = _request(what or [], is_reload=reload, is_canary=canary, is_revert=revert)
        outlook = client_of(ctx).outlook(request)
        show(outlook, output, lambda: outlook_page(outlook, out_screen()))
        _judge_change(outlook)
        return
    if simulate_gpus is not None and config is None:
        raise usage("--simulate-gpus needs --config", "a daemon knows its own GPUs")
    found = client_of(ctx).plan() if config is None else plan_offline(config, simulate_gpus)
    show(found, output, lambda: plan_page(found, out_screen()))
    _judge(found)


def _request(what: list[str], *, is_reload: bool, is_canary: bool, is_revert: bool) -> OutlookRequest:
    if is_reload == is_canary or (is_revert and not (is_reload and not what)):
        raise usage("say which change", "write `orchctl plan --reload [FILE]` or `orchctl plan --canary POOL MODEL`")
    match what:
        case [pool_id, model_ref]:
            return OutlookRequest(pool_id=pool_id, new_model_ref=model_ref, canary=True if is_canary else UNSET)
        case [] if is_reload:
            return OutlookRequest(revert=True if is_revert else UNSET)
        case [file] if is_reload:
            return OutlookRequest(config=_text_of(Path(file)))
        case _:
            raise usage("a canary is of a pool, with a model", "write `orchctl plan --canary POOL MODEL`")


def _text_of(path: Path) -> str:
    """The daemon may not read what this user can: it gets the text."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise VerbError(ExitCode.CONFIG, f"{path} cannot be read", f"see `orchctl validate {path}`") from None


def _judge_change(outlook: ChangeOutlook) -> None:
    """The worst that would become of a pool decides the exit code."""
    never = [pool.pool_id for pool in outlook.pools if pool.way == "never"]
    later = [pool.pool_id for pool in outlook.pools if pool.way in _LATER]
    if outlook.refused is not None:
        raise VerbError(ExitCode.FAILED, "the change would be refused", "see the cause above")
    if never:
        raise VerbError(ExitCode.CONFIG, f"{', '.join(never)} cannot start like this", "take a smaller model or ctx")
    if later:
        raise VerbError(ExitCode.TRY_LATER, f"{', '.join(later)} would not start now", "mend the cause above, or wait")


def _judge(found: MemoryPlan) -> None:
    """A pool that can never work, or one that would wait, decides the exit code."""
    never = [pool.pool_id for pool in found.pools if pool.verdict == "never"]
    waits = [pool.pool_id for pool in found.pools if pool.verdict == "waits"]
    if never:
        raise VerbError(ExitCode.CONFIG, f"{', '.join(never)} cannot work as configured", "mend the config")
    if waits:
        raise VerbError(ExitCode.TRY_LATER, f"{', '.join(waits)} would wait for memory", "free some, or wait")
