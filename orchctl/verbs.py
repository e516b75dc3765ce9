"""The command line's grammar: the verbs, the options that stand before them, and how a bad line is refused.

A verb's module is loaded when that verb is asked for, so that no verb pays for what another one imports.
"""

import functools
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from orchctl import __version__
from orchctl.exits import ExitCode, PipeClosedError, VerbError

VERBS = (
    "serve",
    "validate",
    "plan",
    "status",
    "submit",
    "cancel",
    "logs",
    "drain",
    "resume",
    "keys",
    "models",
    "reload",
    "canary",
    "rollback",
    "rollout",
    "lease",
    "selftest",
    "doctor",
    "upgrade",
    "install",
    "uninstall",
)

HELP_WIDTH_MAX = 100
_HELP = ("-h", "--help")


def invoke(argv: Sequence[str]) -> int:
    """Parse the line and run its verb. Gives the exit code; raises VerbError."""
    width = min(HELP_WIDTH_MAX, typer.get_terminal_size().columns - 2)
    manners = {"help_option_names": list(_HELP), "terminal_width": max(1, width)}
    application = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=manners)
    application.callback(invoke_without_command=True)(_before_the_verb)
    for verb in _to_load(argv):
        module = importlib.import_module(f"orchctl.commands.{verb}")
        if hasattr(module, "ACTIONS"):
            application.add_typer(_group(module), name=verb, context_settings=manners)
        else:
            application.command(verb, context_settings=manners)(_with_own_pipe(getattr(module, verb)))
    command = typer.main.get_command(application)
    try:
        code = command.main(list(argv), prog_name="orchctl", standalone_mode=False)
    except typer.TyperException as error:
        raise _refused_line(error) from None
    except typer.Abort:
        return ExitCode.INTERRUPTED
    return code if isinstance(code, int) else ExitCode.OK


def _group(module: ModuleType) -> typer.Typer:
    """The actions of a verb that has several, such as `keys create` and `keys list`."""
    group = typer.Typer(help=module.HELP, rich_markup_mode=None)
    for name, action in module.ACTIONS.items():
        group.command(name)(_with_own_pipe(action))
    return group


def _with_own_pipe(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb, with a broken pipe kept out of the hands of typer, which would make it exit code 1."""

    @functools.wraps(verb)
    def guarded(*args: object, **options: object) -> None:
        try:
            verb(*args, **options)
        except BrokenPipeError as error:
            raise PipeClosedError from error

    return guarded


def _to_load(argv: Sequence[str]) -> Sequence[str]:
    """The verbs that the line may mean: those whose names stand on it, or all for a help page and a misspelt verb."""
    if argv[:1] == ["--version"]:
        return ()
    named = [verb for verb in VERBS if verb in argv]
    return named if named and argv[0] not in _HELP else VERBS


def _print_version(*, is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"orchctl {__version__}")
        raise typer.Exit


def _before_the_verb(
    ctx: typer.Context,
    *,
    socket: Annotated[
        Path | None,
        typer.Option(
            "--socket",
            envvar="ORCHCTL_SOCKET",
            metavar="PATH",
            # Whether it may be used is for the connection to find out: that is exit code 77 and not 2.
            readable=False,
            help="The control socket of the daemon.",
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001  (its callback has acted by then)
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Run LLM engines on this host: serve, look, submit, drain.

    All verbs but serve and validate ask the running daemon over its Unix socket. Exit codes: 0 ok, 1 failed, 2 usage,
    69 daemon not reachable, 75 try later, 77 not permitted, 78 bad config.
    """
    if ctx.invoked_subcommand is None:
        raise VerbError(ExitCode.USAGE, "a verb is missing", "list the verbs with `orchctl --help`")
    ctx.obj = socket


def _refused_line(error: typer.TyperException) -> VerbError:
    """A sentence for what the parser did not like, and the help page that says how it is meant."""
    cause = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".?")
    cause = cause.replace(". Did you mean ", ", did you mean ")
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "orchctl")
    return VerbError(ExitCode.USAGE, cause[:1].lower() + cause[1:], f"see `{path} --help`")
