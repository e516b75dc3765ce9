"""`orchctl install`: make a systemd service of this orchctl. Shows what it would do, asks, does it."""

import sys
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from orchctl import install_steps, unit_files
from orchctl.exits import ExitCode, VerbError, usage
from orchctl.install_plan import plan_install
from orchctl.install_text import is_confirmed
from orchctl.render import Output, OutputKind, say

HIDDEN = tuple(PurePosixPath(each) for each in ("/home", "/root", "/run/user", "/tmp", "/var/tmp"))  # noqa: S108
"""What ProtectHome= and PrivateTmp= of the unit keep from the service."""

Root = Annotated[
    Path | None, typer.Option("--root", metavar="DIR", help="Install into this tree, for images; starts nothing.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and change nothing.")]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")]


def install(
    *,
    prefix: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Run DIR/bin/orchctl. Without it: this very one.")
    ] = None,
    config: Annotated[
        Path, typer.Option("-c", "--config", metavar="FILE", readable=False, help="The config of the service.")
    ] = Path(unit_files.CONFIG),
    user: Annotated[str, typer.Option(metavar="NAME", help="Who the service runs as.")] = unit_files.USER,
    credentials: Annotated[
        bool, typer.Option("--credentials", help="Hand over /etc/orchctl/keys.json as a systemd credential.")
    ] = False,
    root: Root = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    output: Output = OutputKind.TABLE,
) -> None:
    """Make a systemd service of orchctl.

    Shows the files and commands first, and asks. The config is read and never written; a second run changes nothing.
    """
    setting = _setting(prefix, config, user, root, has_credentials=credentials)
    try:
        wanted = unit_files.draw_files(setting)
    except unit_files.UnfitError as error:
        raise usage(str(error), "choose another one") from None
    facts = install_steps.gather(wanted, user, setting.config, root)
    if credentials and not facts.has_keys:
        cause = f"there is no {unit_files.KEYS} to hand over, and the service would not start"
        raise VerbError(ExitCode.FAILED, cause, f"make one with `orchctl keys create --file {unit_files.KEYS} ...`")
    plan = plan_install(wanted, user, setting.config, facts)
    if is_confirmed(plan, output, is_dry=dry_run, yes=yes):
        install_steps.perform(plan, wanted, root)
        say("installed")


def _setting(
    prefix: Path | None, config: Path, user: str, root: Path | None, *, has_credentials: bool
) -> unit_files.Setting:
    program = prefix / "bin" / "orchctl" if prefix is not None else Path(sys.executable).parent / "orchctl"
    program = program.absolute()
    if root is None:
        _check_program(program, is_this=prefix is None)
    if root is not None and not config.is_absolute():
        raise usage(f"--config {config} is not absolute", "name it as the service will see it, from / of the tree")
    named = PurePosixPath(config if root is not None else config.absolute())
    setting = unit_files.Setting(
        program=PurePosixPath(program), config=named, user=user, has_credentials=has_credentials
    )
    return agreed(setting, install_steps.place(named, root))


def _check_program(program: Path, *, is_this: bool) -> None:
    """It is there, and neither it nor its interpreter is hidden from the service. Raises VerbError."""
    if not program.exists():
        raise usage(f"there is no {program}", "name the folder above its bin with `--prefix DIR`")
    interpreter = [Path(sys.executable).resolve()] if is_this else []
    for path in (program, *interpreter):
        if any(hidden in path.parents for hidden in map(Path, HIDDEN)):
            raise VerbError(
                ExitCode.FAILED,
                f"{path} lies where the service cannot see it",
                "install orchctl with the system's Python: `python3 -m venv /opt/orchctl`, "
                "`/opt/orchctl/bin/pip install orchctl`, `/opt/orchctl/bin/orchctl install`",
            )


def agreed(setting: unit_files.Setting, config: Path) -> unit_files.Setting:
    """The units as they must be for this config, where it is a usable one; else as they are. Raises VerbError."""
    from supervisor.config.load import load  # noqa: PLC0415  (pydantic: `orchctl --help` must not wait for it)
    from supervisor.config.problems import ConfigError  # noqa: PLC0415  (as above)

    try:
        found = load(config).config
    except ConfigError:
        return setting
    listen = found.listen
    if listen.port == 0:
        raise usage(f"listen.port is 0 in {config}, and systemd cannot listen on that", "name a port there")
    host = {"localhost": "127.0.0.1"}.get(listen.host, f"[{listen.host}]" if ":" in listen.host else listen.host)
    return replace(
        setting,
        listen=f"{host}:{listen.port}",
        control_socket=setting.control_socket if listen.socket is None else PurePosixPath(listen.socket),
        stop_s=max(setting.stop_s, found.shutdown.drain_ms // 1000 + unit_files.STOP_SLACK_S),
    )
