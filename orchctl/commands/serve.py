"""`orchctl serve`: become the daemon, in this very process, so that systemd and the shell keep their pid."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from orchctl.commands import validate
from orchctl.exits import ExitCode, VerbError
from orchctl.render import OutputKind


def serve(
    *,
    config: Annotated[
        Path, typer.Option("-c", "--config", metavar="FILE", readable=False, help="The config of the host.")
    ],
    simulate_gpus: Annotated[
        str | None, typer.Option(metavar="NxSIZE", help="Pretend to have GPUs, for a try: 1x8GiB.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the config and start nothing.")] = False,
) -> None:
    """Run the daemon.

    In the foreground, until SIGTERM or Ctrl-C.
    """
    if check:
        validate.check(config, OutputKind.TABLE)
        return
    argv = daemon_argv(config, simulate_gpus)
    sys.stdout.flush()
    try:
        os.execv(sys.executable, argv)  # noqa: S606  (an argv list; no shell is wanted)
    except OSError as error:
        cause = f"the interpreter {sys.executable} cannot be started ({error.strerror})"
        raise VerbError(ExitCode.FAILED, cause, "install orchctl again") from None


def daemon_argv(config: Path, simulate_gpus: str | None) -> list[str]:
    """The daemon's command line. `-P`: a folder called supervisor where the operator stands is not the daemon."""
    argv = [sys.executable, "-P", "-m", "supervisor", "--config", str(config)]
    if simulate_gpus is not None:
        argv += ["--simulate-gpus", simulate_gpus]
    return argv
