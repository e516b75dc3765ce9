"""`orchctl keys`: API keys made, listed, replaced and revoked, in their file. A running daemon follows the file."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from orchctl.context import client_of
from orchctl.durations import lifetime_ms
from orchctl.exits import ExitCode, UnreachableError, VerbError, usage
from orchctl.key_text import KeyList, list_lines, say_issued, view_issued, view_key
from orchctl.render import Output, OutputKind, print_document, show
from orchctl.terminal import out_screen
from supervisor.config.keys import (
    Grant,
    Issued,
    KeyChanges,
    KeyFile,
    KeysError,
    changing_keys,
    find_key_file,
    read_keys,
)
from supervisor.config.paths import defaults_from_environ
from supervisor.wire.codes import Priority, Scope

HELP = "Make, list, replace and revoke API keys."

Config = Annotated[
    Path | None, typer.Option("-c", "--config", metavar="FILE", readable=False, help="The config of the daemon.")
]
File = Annotated[Path | None, typer.Option("--file", metavar="FILE", readable=False, help="The key file itself.")]
KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="The id that `orchctl keys list` shows.")]
Expires = Annotated[str | None, typer.Option("--expires", metavar="TIME", help="How long it opens: 30d, 12h.")]


def create(  # noqa: PLR0913  (the options of a verb)
    ctx: typer.Context,
    *,
    scope: Annotated[list[Scope], typer.Option("--scope", help="What it opens; may be said several times.")],
    tenant: Annotated[str, typer.Option("--tenant", metavar="NAME", help="Whose tasks it is for.")] = "default",
    priority: Annotated[
        list[Priority] | None, typer.Option("--priority", help="Classes it may ask for. Without it: all.")
    ] = None,
    expires: Expires = None,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="What it is for.")] = "",
    config: Config = None,
    file: File = None,
    output: Output = OutputKind.TABLE,
) -> None:
    """Make a key.

    It is printed once, here, and kept nowhere.
    """
    lifetime = _lifetime(expires)
    grant = Grant(
        tenant=tenant, scopes=tuple(scope), priorities=tuple(priority or Priority), lifetime=lifetime, note=note
    )
    path, now = _find_file(ctx, config, file), _now()
    with _changing(path) as changes:
        issued = changes.create(grant, now)
    _print_issued(issued, path, now, output)


def list_keys(
    ctx: typer.Context, *, config: Config = None, file: File = None, output: Output = OutputKind.TABLE
) -> None:
    """Show who has a key, for what and until when."""
    path, now = _find_file(ctx, config, file), _now()
    page = KeyList(file=str(path), keys=[view_key(key, now) for key in _read(path).keys])
    show(page, output, lambda: list_lines(page, out_screen(), is_wide=output is OutputKind.WIDE))


def rotate(
    ctx: typer.Context,
    key_id: KeyId,
    *,
    grace: Annotated[str, typer.Option(metavar="TIME", help="How long the old key still opens.")] = "10m",
    expires: Expires = None,
    config: Config = None,
    file: File = None,
    output: Output = OutputKind.TABLE,
) -> None:
    """Replace a key.

    The new one has the same rights and is printed once; the old one opens until the grace is over.
    """
    lasting = timedelta(milliseconds=lifetime_ms(grace, "--grace"))
    lifetime = _lifetime(expires)
    path, now = _find_file(ctx, config, file), _now()
    with _changing(path) as changes:
        issued = changes.rotate(key_id, now, grace=lasting, lifetime=lifetime)
    _print_issued(issued, path, now, output, replaces=key_id)


def revoke(
    ctx: typer.Context,
    key_id: KeyId,
    *,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    config: Config = None,
    file: File = None,
    output: Output = OutputKind.TABLE,
) -> None:
    """Close a key for good.

    A running daemon refuses it within seconds; streams that are open go on to their end.
    """
    path, now = _find_file(ctx, config, file), _now()
    if not yes:
        _confirm(key_id)
    with _changing(path) as changes:
        view = view_key(changes.revoke(key_id, now), now)
    show(view, output, lambda: [f"key {key_id} is revoked; a running daemon refuses it within seconds"])


ACTIONS = {"create": create, "list": list_keys, "rotate": rotate, "revoke": revoke}


def _find_file(ctx: typer.Context, config: Path | None, file: Path | None) -> Path:
    """The key file: 1. named; 2. that of the config; 3. that of the daemon that runs; 4. the user's default."""
    if file is not None and config is not None:
        raise usage("--file and --config name two places", "give one of them")
    if file is not None:
        return file.absolute()
    defaults = defaults_from_environ(os.environ, os.geteuid())
    if config is not None:
        return _file_of_config(config, defaults.state_dir)
    try:
        running = client_of(ctx).status().keys_file
    except UnreachableError:
        running = None
    return Path(running) if running is not None else find_key_file(None, defaults.state_dir, {})


def _file_of_config(config: Path, state_dir: Path) -> Path:
    from supervisor.config.load import load  # noqa: PLC0415  (pydantic: the other ways must not wait for it)
    from supervisor.config.problems import ConfigError  # noqa: PLC0415  (as above)

    try:
        loaded = load(config).config
    except ConfigError as error:
        raise VerbError(ExitCode.CONFIG, str(error.problems[0]), f"see all with `orchctl validate {config}`") from None
    return find_key_file(loaded.auth.keys_file, loaded.state_dir or state_dir, {})


def _read(path: Path) -> KeyFile:
    try:
        return read_keys(path, os.environ)
    except FileNotFoundError:
        return KeyFile()
    except KeysError as error:
        raise _refused(error) from None


@contextmanager
def _changing(path: Path) -> Iterator[KeyChanges]:
    try:
        with changing_keys(path, os.environ) as changes:
            yield changes
    except KeysError as error:
        raise _refused(error) from None


def _refused(error: KeysError) -> VerbError:
    is_denied = isinstance(error.__cause__, PermissionError) or "Permission denied" in str(error)
    code = ExitCode.NOT_PERMITTED if is_denied else ExitCode.FAILED
    return VerbError(code, str(error), "run it as root or as the user of the daemon" if is_denied else None)


def _lifetime(expires: str | None) -> timedelta | None:
    if expires is None:
        return None
    lifetime = timedelta(milliseconds=lifetime_ms(expires, "--expires"))
    if lifetime < timedelta(seconds=1):
        raise usage("--expires is at least 1s", "give a longer time")
    return lifetime


def _confirm(key_id: str) -> None:
    """A revoked key does not come back. Only a person at a terminal can be asked."""
    if not sys.stdin.isatty():
        raise usage(f"revoking {key_id} cannot be undone", "say `--yes`")
    if not typer.confirm(f"Revoke {key_id} for good?", err=True):
        raise VerbError(ExitCode.FAILED, "nothing was changed", "give it time with `orchctl keys rotate`")


def _print_issued(issued: Issued, path: Path, now: datetime, output: OutputKind, replaces: str | None = None) -> None:
    """For a person and a shell the key alone goes to standard output: `KEY=$(orchctl keys create ...)`."""
    view = view_issued(issued, path, now, replaces)
    if output.is_for_programs:
        show(view, output, list)
        return
    say_issued(view)
    print_document(f"{view.secret}\n")


def _now() -> datetime:
    """In whole seconds, as the file is for people too."""
    return datetime.now(UTC).replace(microsecond=0)
